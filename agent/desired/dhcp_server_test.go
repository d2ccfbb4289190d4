package desired

import (
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

func TestDHCPServers(t *testing.T) {
	for name, c := range map[string]struct {
		label     string
		image     bool
		permitted config.Globs
		unguarded config.Globs
		want      [2]bool // on front, on back
		wrong     string
		note      string
	}{
		"without_a_label":                  {"", false, config.Globs{"*"}, nil, [2]bool{}, "", ""},
		"a_label_alone":                    {"server", false, nil, nil, [2]bool{}, "", "the operator's configuration does not permit it on network front (guard.dhcp_servers: [front])"},
		"on_another_network":               {"server", false, config.Globs{"lab"}, nil, [2]bool{}, "", "guard.dhcp_servers: [front]"},
		"with_the_operators_word":          {"server", false, config.Globs{"*"}, nil, [2]bool{true, true}, "", ""},
		"on_one_of_its_networks":           {"server", false, config.Globs{"back"}, nil, [2]bool{false, true}, "", ""},
		"an_image_label_does_not_count":    {"server", true, config.Globs{"*"}, nil, [2]bool{}, "", "label netguard.guard.dhcp of dns does not count: the image has the same"},
		"where_nobody_guards_it":           {"server", false, nil, config.Globs{"*"}, [2]bool{}, "", ""},
		"another_value":                    {"yes", false, config.Globs{"*"}, nil, [2]bool{}, `label netguard.guard.dhcp is "yes": it is server`, ""},
		"another_value_of_an_image_closes": {"Server", true, config.Globs{"*"}, nil, [2]bool{}, `label netguard.guard.dhcp is "Server"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			of := docker.Container{ID: "id-dns", Name: "dns", Labels: map[string]string{}}
			if c.label != "" {
				of.Labels[guard.LabelDHCP] = c.label
			}
			if c.image {
				of.Inherited = map[string]bool{guard.LabelDHCP: true}
			}
			all := []endpoint.Endpoint{joined("dns", front, "172.18.0.2", ""), joined("dns", back, "172.19.0.2", "")}
			all[0].Container, all[1].Container = of, of
			endpoints := desired(pointers(all...), &config.Config{DHCPServers: c.permitted, Unguarded: c.unguarded}, shaper.Hashed)
			if got := [2]bool{endpoints[0].dhcpServer, endpoints[1].dhcpServer}; got != c.want {
				t.Errorf("a server on front and back: %v, want %v", got, c.want)
			}
			for want, got := range map[string][]string{c.wrong: endpoints[0].Wrong, c.note: endpoints[0].notes} {
				if want != "" && !strings.Contains(strings.Join(got, " "), want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
			if (c.wrong == "") != (len(endpoints[0].Wrong) == 0) || (c.note == "") != (len(endpoints[0].notes) == 0) {
				t.Errorf("wrong %q, notes %q", endpoints[0].Wrong, endpoints[0].notes)
			}
		})
	}
	// Of who shares its namespace the label counts as well.
	e := joined("web", front, "172.18.0.2", "")
	e.Sharers = []docker.Container{{Name: "dns", Labels: map[string]string{guard.LabelDHCP: "server"}}}
	if d := desired(pointers(e), &config.Config{DHCPServers: config.Globs{"front"}}, shaper.Hashed)[0]; !d.dhcpServer {
		t.Error("a sharer's label does not count")
	}
}
