package integration

import (
	"net/netip"
	"slices"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
	"netguard/netpolicy"
)

// explainPublished is part of TestPublishedPorts: `policy explain` says of the published
// port what becomes of a connection, whoever carries it on.
func explainPublished(t *testing.T, e *Engine, book *rulebook, proxy bool, clients ...*guest) {
	host := &spot{"host", e.Netns}
	own := append([]netip.Addr{HostIPv4, HostIPv6, netip.MustParseAddr("127.0.0.1")}, gateways...)
	for what, rules := range map[string]string{
		"near":          `ingress: [{from: [{service: near}, {service: friend}], ports: [tcp/80]}]`,
		"near_and_host": `ingress: [{from: [{service: near}, {entity: host}], ports: [tcp/80]}]`,
		"host":          `ingress: [{from: [{entity: host}]}]`,
		"another_port":  `ingress: [{from: [{entity: any}], ports: [tcp/8080]}]`,
		"denied":        `deny: [{ingress: {from: [{entity: host}]}}]`,
	} {
		book.enact(t, map[string]string{"web.yaml": "{name: web, select: {project: shop, service: web}, " + rules + "}"})
		var all []*knock
		ask := func(s *spot, name string, to netip.Addr) {
			x, err := book.client.Explain(t.Context(), name, to.String(), "tcp/8080")
			if err != nil {
				t.Fatal(err)
			}
			if len(x.Answers) != 1 || x.Answers[0].Allowed != x.Allowed {
				t.Errorf("%s: %s to %s: %+v", what, name, to, x)
				return
			}
			all = append(all, s.to(x.Allowed, what+": "+x.Answers[0].Sentence, "tcp/8080", to)...)
		}
		for _, to := range own {
			ask(host, "host", to)
		}
		for _, c := range clients {
			if c.network == "far" && !proxy {
				continue // Docker keeps the networks apart, as the note says
			}
			ask(c.at, c.Name, HostIPv4)
			ask(c.at, c.Name, HostIPv6)
		}
		mustKnock(t, all)
	}
}

// proxyIsTold is about docker-proxy's connections, which are the host's to policies: those
// that were just refused name the published port, and `policy plan` says which would pass.
func proxyIsTold(t *testing.T, book *rulebook, web *guest, watch *Process) {
	t.Helper()
	awaitEvents(t, watch, arrives, func(all []control.Event) bool {
		return slices.ContainsFunc(all, func(e control.Event) bool {
			return e.Type == control.EventDenied && e.From.Entity == "host" && e.To.Container == web.Name && e.Service == "tcp/80" && slices.Equal(e.Published, []string{"tcp/8080"})
		})
	})
	d, err := book.client.Plan(t.Context(), []netpolicy.Source{{Name: "web.yaml", Data: []byte("{name: web, select: {project: shop, service: web}, ingress: [{from: [{entity: host}], ports: [tcp/80]}]}")}})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Published) != 1 || d.Published[0].Port != "tcp/8080" || !d.Published[0].Allowed || d.Published[0].Container != web.Name {
		t.Errorf("plan says %+v", d.Published)
	}
}
