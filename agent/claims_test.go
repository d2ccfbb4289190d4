package agent

import (
	"net/netip"
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/agent/endpoint"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

func TestLabelClaims(t *testing.T) {
	for name, c := range map[string]struct {
		label     string
		permitted []string
		widened   []string
		want      string
		note      string
	}{
		"any_single_address":                   {"192.0.2.10,2001:db8::1", nil, nil, "192.0.2.10/32 2001:db8::1/128", ""},
		"no_prefix_without_the_operators_word": {"192.0.2.10,198.51.100.0/28", nil, nil, "192.0.2.10/32", "198.51.100.0/28 is left out: a prefix needs the operator's permission"},
		"a_prefix_with_it":                     {"198.51.100.0/28", []string{"198.51.100.0/24"}, nil, "198.51.100.0/28", ""},
		"not_more_than_it_says":                {"198.51.100.0/23,192.0.2.10", []string{"198.51.100.0/24"}, nil, "", "192.0.2.10 is left out: the operator does not permit it"},
		"nothing_that_opens_something":         {"192.0.2.10,192.0.2.11", nil, []string{"192.0.2.10"}, "192.0.2.11/32", "192.0.2.10 is left out: a policy allows a CIDR that has it"},
		"unless_the_operator_permits_it":       {"192.0.2.10", []string{"192.0.2.10/32"}, []string{"192.0.2.10"}, "192.0.2.10/32", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg config.Config
			for _, p := range c.permitted {
				cfg.Claims = append(cfg.Claims, netip.MustParsePrefix(p))
			}
			d := &desired([]endpoint.Endpoint{{Container: container(guard.LabelAllow, c.label)}}, cfg, shaper.Hashed)[0]
			var widened []netip.Addr
			for _, a := range c.widened {
				widened = append(widened, netip.MustParseAddr(a))
			}
			d.narrow(widened, cfg.Claims)
			var got []string
			for _, p := range d.allow.Prefixes {
				got = append(got, p.String())
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if notes := strings.Join(d.notes, "\n"); !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
				t.Errorf("notes %q", notes)
			}
			if len(d.wrong) > 0 {
				t.Errorf("it is quarantined: %q", d.wrong)
			}
		})
	}
}
