package netpolicy

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPlanOfPublishedPorts(t *testing.T) {
	web := Endpoint{Workload: Workload{ID: "1", Name: "web"}, Network: "net", Bridge: "br0", Managed: true, Addrs: []netip.Addr{addr("172.18.0.2"), addr("fd00::2")},
		Published: []Publish{{HostPort: 8080, Port: 80, Proto: TCP}, {HostPort: 53, Port: 53, Proto: UDP}}}
	compile := func(text string) *RuleSet {
		return Compile(World{Endpoints: refs([]Endpoint{web}), Policies: mustLoad(t, text)})
	}
	const open, closed = "{name: a, select: {container: web}, egress: []}", "{name: p, select: {container: web}, ingress: [{from: [{container: web}]}, {from: [{entity: host}], ports: [udp/53]}]}"
	host := []netip.Addr{addr("172.18.0.1"), addr("fd00::1")}
	for name, c := range map[string]struct {
		before, after string
		want          string
	}{
		"closed":          {open, closed, "docker-proxy, by which containers and loopback addresses of the host reach its published port tcp/8080, may no longer reach web on net by tcp/80, as the host (entity: host): denied by policy p"},
		"opened":          {closed, open, "may now reach web on net by tcp/80, as the host (entity: host): it was denied by policy p"},
		"nothing_changes": {closed, closed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := Plan(compile(c.before), compile(c.after), refs([]Endpoint{web}), host)
			got := ""
			for _, p := range d.Published {
				got += p.Sentence
			}
			if !strings.Contains(got, c.want) || len(d.Published) > 1 || (got == "") != (c.want == "") {
				t.Errorf("%+v, want %q", d.Published, c.want)
			}
		})
	}
}
