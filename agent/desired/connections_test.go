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

func TestConnectionsOfAnEndpoint(t *testing.T) {
	labelled := func(values ...string) endpoint.Endpoint {
		e := endpoint.Endpoint{}
		for i, v := range values {
			c := docker.Container{Labels: map[string]string{guard.LabelConnections: v}}
			if i == 0 {
				e.Container = c
			} else {
				e.Sharers = append(e.Sharers, c)
			}
		}
		return e
	}
	for name, c := range map[string]struct {
		operator uint32
		labels   []string
		limit    uint32
		wrong    string
		note     string
	}{
		"the_operators":             {1000, nil, 1000, "", ""},
		"none":                      {0, nil, 0, "", ""},
		"a_label_asks_for_less":     {1000, []string{"20"}, 20, "", ""},
		"a_label_asks_for_more":     {1000, []string{"2000"}, 1000, "", "asks for 2000 connections, the operator's limit (guard.connections) is 1000"},
		"a_label_alone":             {0, []string{"20"}, 20, "", ""},
		"the_lowest_of_who_share":   {1000, []string{"20", "10"}, 10, "", ""},
		"a_wrong_label_of_a_sharer": {1000, []string{"20", "no limit"}, 20, `label netguard.guard.connections is "no limit"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := desired(pointers(labelled(c.labels...)), &config.Config{Connections: c.operator}, shaper.Leaf(""))[0]
			if d.connections != c.limit {
				t.Errorf("%d, want %d", d.connections, c.limit)
			}
			for want, got := range map[string][]string{c.wrong: d.Wrong, c.note: d.notes} {
				if want == "" {
					continue
				}
				if !strings.Contains(strings.Join(got, " "), want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
			if (c.wrong == "") != (len(d.Wrong) == 0) || (c.note == "") != (len(d.notes) == 0) {
				t.Errorf("wrong %q, notes %q", d.Wrong, d.notes)
			}
		})
	}
}
