package iptables

import (
	"errors"
	"strings"
	"testing"

	"netguard/netpolicy"
)

func TestLay(t *testing.T) {
	tests := map[string]func(*netpolicy.Family){
		"a_set_by_another_name":     func(f *netpolicy.Family) { f.Sets[0].Name = "x src -j ACCEPT" },
		"a_set_of_the_other_family": func(f *netpolicy.Family) { f.Sets[0].Name = strings.Replace(f.Sets[0].Name, "ng4", "ng6", 1) },
		"a_chain_by_another_name":   func(f *netpolicy.Family) { f.Chains[0].Name = "INPUT" },
		"a_chain_twice":             func(f *netpolicy.Family) { f.Chains[1].Name = f.Chains[0].Name },
		"an_unknown_set":            func(f *netpolicy.Family) { f.Chains[0].Rules[0].Sets[0].Set = "ng4-s-bbbbbbbbbbbbbbbb" },
		"an_unknown_target":         func(f *netpolicy.Family) { f.Chains[1].Rules[0].Goto = "NG-FI-bbbbbbbbbbbb" },
		"a_loop":                    func(f *netpolicy.Family) { f.Chains[1].Rules[0].Goto = f.Chains[1].Name },
		"an_unknown_entry":          func(f *netpolicy.Family) { f.Entry[1] = "INPUT" },
		"a_protocol_it_has_not": func(f *netpolicy.Family) {
			f.Chains[0].Rules[1].Proto = netpolicy.ICMPv6
			f.Chains[0].Rules[1].Ports = nil
		},
		"ports_without_a_protocol":   func(f *netpolicy.Family) { f.Chains[0].Rules[1].Proto = 0 },
		"ports_of_one_without_ports": func(f *netpolicy.Family) { f.Chains[0].Rules[1].Proto = netpolicy.ICMP },
	}
	for name, spoil := range tests {
		t.Run("refuses/"+name, func(t *testing.T) {
			rs := states()[0].rules()
			spoil(&rs.V4)
			if _, err := lay(&rs.V4, Options{Samples: true}); !errors.Is(err, ErrInvalid) {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestSameRule(t *testing.T) {
	tests := map[string]struct {
		a, b string
		want bool
	}{
		"a_protocol_by_number":    {"-p icmpv6 -m icmp6 --icmpv6-type 135 -j RETURN", "-p 58 -m icmp6 --icmpv6-type 135 -j RETURN", true},
		"states_in_another_order": {"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN", true},
		"flags_in_another_order":  {"-p tcp -m tcp --sport 0:32767 " + notSyn, "-p tcp -m tcp --sport :32767 ! --tcp-flags SYN,RST,ACK,FIN SYN", true},
		"another_protocol":        {"-p tcp -j RETURN", "-p udp -j RETURN", false},
		"another_verdict":         {"-j RETURN", "-j ACCEPT", false},
		"a_negation":              {"-m set ! --match-set x src -j DROP", "-m set --match-set x src -j DROP", false},
		"more_states":             {"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", "-m conntrack --ctstate NEW,RELATED,ESTABLISHED -j RETURN", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if have := sameRule(test.a, test.b); have != test.want {
				t.Errorf("same = %t", have)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	t.Run("is_bounded", func(t *testing.T) {
		p := &plan{destroy: make([]string, 1000)}
		all := p.describe(&kernel{})
		if len(all) != maxSentences+1 || all[maxSentences] != "and 980 things more" {
			t.Errorf("%d sentences, the last %q", len(all), all[len(all)-1])
		}
	})
}

func TestRefusalOf(t *testing.T) {
	for _, side := range []netpolicy.Side{netpolicy.Src, netpolicy.Dst} {
		for _, d := range netpolicy.Directions {
			r := Refusal{side, d}
			if have, ok := RefusalOf(r.prefix()); !ok || have != r || len(r.prefix()) > 63 {
				t.Errorf("%q is %v, %t", r.prefix(), have, ok)
			}
		}
	}
	for _, strange := range []string{"", "netguard", "netguard-src", "netguard-src-ingress ", "netguard mac"} {
		if r, ok := RefusalOf(strange); ok {
			t.Errorf("%q is %v", strange, r)
		}
	}
}
