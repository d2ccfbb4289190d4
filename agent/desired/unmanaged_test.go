package desired

import (
	"fmt"
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/shaper"
)

func TestLabelsInVain(t *testing.T) {
	many := []string{}
	for i := range maxTold + 3 {
		many = append(many, fmt.Sprintf("netguard.x%02d", i), "y")
	}
	for name, c := range map[string]struct {
		labels []string
		sharer []string
		chosen bool // that it is left alone
		want   string
	}{
		"none":                         {labels: []string{"com.example", "x"}},
		"a_limit":                      {labels: []string{"netguard.egress.rate", "1mbit"}, want: "label netguard.egress.rate has no effect: its network's driver"},
		"a_policy_and_a_typing_error":  {labels: []string{"netguard.ingress", "[]", "netguard.igress", "[]"}, want: "labels netguard.igress, netguard.ingress have no effect: its network's driver"},
		"who_shares_it":                {sharer: []string{"netguard.egress", "[]"}, want: "label netguard.egress has no effect"},
		"one_that_wants_nothing":       {labels: []string{"netguard.enabled", "false"}},
		"one_that_wants_to_be_managed": {labels: []string{"netguard.enabled", "true"}, want: "label netguard.enabled has no effect"},
		"of_this_network":              {labels: []string{"netguard.network.lan.egress.rate", "1mbit"}, want: "netguard.network.lan.egress.rate has no effect"},
		"of_another_that_it_is_on":     {labels: []string{"netguard.network.front.egress.rate", "1mbit"}},
		"of_one_that_it_is_not_on":     {labels: []string{"netguard.network.fron.egress.rate", "1mbit"}, want: "netguard.network.fron.egress.rate has no effect"},
		"somebody_wants_it_so":         {labels: []string{"netguard.egress.rate", "1mbit"}, chosen: true},
		"too_many":                     {labels: many, want: "and 3 more have no effect"},
	} {
		t.Run(name, func(t *testing.T) {
			on := func(network, driver string) endpoint.Endpoint {
				return endpoint.Endpoint{Key: endpoint.Key{Container: "c", Network: network}, Container: container(c.labels...), Sharers: []docker.Container{container(c.sharer...)},
					Network: docker.Network{Name: network, Driver: driver}}
			}
			driver, cfg := "macvlan", &config.Config{}
			if c.chosen {
				driver, cfg.Exclude = "bridge", []string{"lan"}
			}
			d := desired(pointers(on("lan", driver), on("front", "bridge")), cfg, shaper.Hashed)[0]
			if d.Unmanaged == "" {
				t.Error("it is managed")
			}
			if got := strings.Join(d.notes, "\n"); len(d.notes) > 1 || !strings.Contains(got, c.want) || (got == "") != (c.want == "") || len(d.Wrong) > 0 {
				t.Errorf("%q, want %q", d.Faults(), c.want)
			}
			if (d.Summary() == "") != (c.want == "") {
				t.Errorf("the log has %q", d.Summary())
			}
		})
	}
}
