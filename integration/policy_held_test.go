package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestPolicyWithOldRulesHeld: a rule of somebody else's leads to a chain of netguard's,
// or names a set of its, which then cannot be taken away when policies change. What is
// new is in force all the same, within a bridge that had no policy before and for
// connections that exist, as long as that rule stays; status says what is wrong.
func TestPolicyWithOldRulesHeld(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]func(e *Engine) string{
		"chain": func(e *Engine) string {
			chain := regexp.MustCompile(`NG-F-\S+`).FindString(e.Output("iptables", "-S", "NG-FORWARD"))
			return "-A MINE -j " + chain
		},
		"set": func(e *Engine) string {
			set := regexp.MustCompile(`ng4-[a-z]+-\S{12}`).FindString(e.Output("sh", "-c", "iptables-save | grep match-set"))
			return "-A MINE -m set --match-set " + set + " src,src -j RETURN"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Start(t, WithIPv6())
			e.Network("net", Subnet("198.18.51.0/24"), Subnet("fd00:51::/64"))
			services := []string{"tcp/80", "udp/53"}
			var all []*guest
			for _, name := range []string{"ann", "bob", "cid"} {
				all = append(all, welcome(t, e, name, "net", services))
			}
			ann, bob, cid := all[0], all[1], all[2]
			book := newRulebook(e, e.Agent())
			book.awaitAdmitted(t, len(all))
			book.enact(t, map[string]string{"old.yaml": "{name: old, select: {container: beacon}, egress: [{to: [{cidr: 192.0.2.1/32}], ports: [tcp/9]}]}"})
			rule := hold(e)
			e.Output("sh", "-c", "iptables -N MINE && iptables "+rule)
			open := map[*call]bool{}
			denied := []*call{place(t, ann, bob, "tcp/80", bob.Addr("net", 80)), place(t, ann, bob, "tcp/80", bob.Addr6("net", 80)), place(t, ann, bob, "udp/53", bob.Addr("net", 53))}
			kept := []*call{place(t, cid, bob, "tcp/80", bob.Addr("net", 80)), place(t, cid, bob, "udp/53", bob.Addr6("net", 53))}
			for _, c := range slices.Concat(denied, kept) {
				open[c] = true
			}
			settle(t, slices.Concat(denied, kept), open, nil, "before")
			told := func(s control.Status) bool {
				return !s.InSync && slices.ContainsFunc(s.Findings, func(f string) bool {
					return strings.Contains(f, "cannot all be taken away") && strings.Contains(f, "somebody else's")
				})
			}
			inForce := func(s control.Status) bool {
				ep, ok := Endpoint(s, bob.Container, "net")
				return ok && ep.State == control.Admitted && slices.Contains(ep.Policy.Ingress, "bob") && told(s) && AllAdmitted(s)
			}
			// Held for good: also when policies change again.
			for i, from := range []string{"cid", "c*d"} {
				book.post(t, map[string]string{"bob.yaml": fmt.Sprintf("{name: bob, select: {container: bob}, ingress: [{from: [{container: %q}]}]}", from)})
				breaks := map[*call]int{}
				for _, c := range kept {
					_, breaks[c] = c.answers()
				}
				book.await(t, "the policy is in force, and status says what is left", inForce)
				time.Sleep(stopsWithin) // connections are gone over after the rules
				since := time.Now()
				for _, c := range denied {
					c.passed(since)
				}
				time.Sleep(restsFor) // nothing must come in this time
				for _, c := range denied {
					if n := c.passed(since); n > 0 {
						t.Errorf("change %d: %s is denied, and %d words got through", i, c, n)
					}
				}
				settle(t, kept, open, nil, "after the change")
				for _, c := range kept {
					if _, n := c.answers(); n != breaks[c] {
						t.Errorf("change %d: %s is allowed, and broke", i, c)
					}
				}
				mustKnock(t, slices.Concat(ann.to(false, bob, services...), cid.to(true, bob, services...), ann.to(true, cid, services...)))
			}
			dot := welcome(t, e, "dot", "net", services)
			book.await(t, "who comes meanwhile is admitted", func(s control.Status) bool {
				return len(s.Endpoints) == len(all)+2 && AllAdmitted(s) && told(s)
			})
			mustKnock(t, slices.Concat(dot.to(false, bob, services...), dot.to(true, ann, services...)))
			e.Output("sh", "-c", "iptables -F MINE && iptables -X MINE")
			book.await(t, "all is in force, and nothing is left", book.inForce)
		})
	}
}
