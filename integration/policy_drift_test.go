package integration

import (
	"strings"
	"testing"
	"time"

	. "netguard/integration/harness"
)

// repairs is how long it may take where nothing tells of a change, and a bit for
// a machine that is busy.
const repairs = 13 * time.Second

// drift plays damage on a host; slow is what only a look at the kernel finds.
//
// What somebody else breaks is put back by itself, and logged.
func drift(t *testing.T, slow bool) {
	for name, options := range map[string][]Option{"nftables": nil, "legacy": {WithLegacyIptables()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Start(t, append([]Option{WithIPv6()}, options...)...)
			c := newTrio(t, e)
			book := newRulebook(e, e.Agent())
			book.awaitAdmitted(t, 4)
			t.Run("all_is_open_before", func(t *testing.T) { mustKnock(t, c.all()) })
			bridge := e.ExistingNetwork("net").Bridge
			closed := []string{"web>db", "other>db", "web>api", "web>other", "api>other", "db>other"}
			book.enact(t, map[string]string{"db.yaml": dbPolicy, "web.yaml": webPolicy,
				"deny.yaml": "{name: no-other, select: {project: blog}, deny: [{ingress: {}}]}\n"})
			mustKnock(t, c.all(closed...))
			for _, d := range []struct{ name, damage string }{
				{"DOCKER-USER_flushed", "iptables -F DOCKER-USER"},
				{"own_chain_flushed", "iptables -F NG-FORWARD"},
				{"own_chain_of_IPv6_flushed", "ip6tables -F NG-FORWARD"},
				{"ACCEPT_before_it", "iptables -I DOCKER-USER -j ACCEPT"},
				{"a_member_of_every_set_removed", "for s in $(ipset list -n | grep ^ng); do m=$(ipset list $s | sed -n '/^Members/,$p' | sed -n 2p | cut -d' ' -f1); test -z \"$m\" || ipset del $s $m; done"},
				{"a_member_added_to_every_set", "for s in $(ipset list -n | grep ^ng4); do ipset add $s " + c.other.addrs[0].String() + " 2>/dev/null; done; true"},
				{"sets_flushed", "for s in $(ipset list -n | grep ^ng); do ipset flush $s; done"},
				{"bridge_switched_off", "ip link set dev " + bridge + " type bridge nf_call_iptables 0 nf_call_ip6tables 0"},
				// Docker's own rules do not come back before Docker starts again, and
				// without them what it forwards is up to FORWARD's policy.
				{"all_flushed", "iptables -P FORWARD ACCEPT; iptables -F"},
				{"all_of_IPv6_flushed", "ip6tables -P FORWARD ACCEPT; ip6tables -F"},
			} {
				told := name == "nftables" && strings.Contains(d.damage, "tables -") // by the kernel
				if !slow && !told && d.name != "a_member_of_every_set_removed" && !(name == "legacy" && d.name == "all_flushed") {
					continue
				}
				t.Run(d.name, func(t *testing.T) {
					before := strings.Count(book.a.Log(), "changed by somebody else")
					e.For(t).Output("sh", "-c", d.damage)
					began := time.Now()
					for {
						wrong := knockAll(t, c.all(closed...))
						if len(wrong) == 0 {
							break
						}
						if time.Since(began) > repairs {
							t.Fatalf("not repaired after %v: %s", time.Since(began), describe(c.all(closed...), wrong))
						}
					}
					took := time.Since(began)
					t.Logf("right again after %v at most", took)
					if d.name == "bridge_switched_off" {
						return // a bridge is not a rule
					}
					for strings.Count(book.a.Log(), "changed by somebody else") == before {
						if time.Since(began) > repairs {
							t.Fatalf("nothing of it in the log:\n%s", book.a.Log())
						}
						time.Sleep(50 * time.Millisecond) // the log has no event for what is not yet there
					}
				})
			}
		})
	}
}

func TestPolicyDrift(t *testing.T) { drift(t, false) }

func TestSoakPolicyDrift(t *testing.T) {
	soaking(t)
	drift(t, true)
}
