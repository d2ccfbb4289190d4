package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	. "netguard/integration/harness"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

// outdated turns what an agent left into what an older version might have: the same
// policy in chains and sets of other names, with other jumps to them; a guard with other
// chains; and the number of an older format.
func outdated(e *Engine, web, db *Container) {
	var script strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&script, format+"\n", args...) }
	for _, f := range []struct{ cmd, family, set, web, db string }{
		{"iptables", "inet", "ng4-old-aaaaaaaaaaaa", web.IP("net").String(), db.IP("net").String()},
		{"ip6tables", "inet6", "ng6-old-aaaaaaaaaaaa", web.IP6("net").String(), db.IP6("net").String()},
	} {
		line("ipset create %s hash:net family %s && ipset add %s %s", f.set, f.family, f.set, f.db)
		line("{ echo '*filter'")
		// All of now's chains go, but for what says what was made.
		line("%s-save -t filter | sed -n 's/^:\\(NG[RM]*-[A-Z]*-[a-z2-7]\\{12\\}\\|NG-FORMAT-[0-9]*\\|NG-STRAY\\) .*/\\1/p' > /tmp/gone.$$", f.cmd)
		line("echo ':NG-FORMAT-1 - [0:0]'; echo ':NG-PLO-aaaaaaaaaaaa - [0:0]'; echo ':NG-FORWARD - [0:0]'; echo ':NG-INPUT - [0:0]'; echo ':NG-OUTPUT - [0:0]'")
		line("echo '-A NG-PLO-aaaaaaaaaaaa -s %s -p tcp --dport 80 -j RETURN'; echo '-A NG-PLO-aaaaaaaaaaaa -j DROP'", f.web)
		line("echo '-A NG-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN'")
		line("echo '-A NG-FORWARD -m set --match-set %s dst -g NG-PLO-aaaaaaaaaaaa'", f.set)
		line("echo '-A NG-INPUT -j RETURN'")
		line("echo '-I FORWARD 1 -m comment --comment \"of netguard\" -j NG-FORWARD'; echo '-I INPUT 1 -j NG-INPUT'")
		line("sed 's/^/-F /' /tmp/gone.$$; sed 's/^/-X /' /tmp/gone.$$; rm /tmp/gone.$$; echo COMMIT; } | %s-restore --noflush", f.cmd)
		line("%s -I OUTPUT 1 ! -o lo -j NG-OUTPUT; %s -D OUTPUT -j NG-OUTPUT", f.cmd, f.cmd)
		line("%s -D INPUT ! -i lo -j NG-INPUT; %s -D DOCKER-USER -j NG-FORWARD 2>/dev/null || %s -D FORWARD -j NG-FORWARD", f.cmd, f.cmd, f.cmd)
		line("ipset list -n | grep '^%s' | grep -v -e -old- -e bridges | xargs -n 1 ipset destroy", f.set[:4])
	}
	// Of the guard the records stay, which say what ports were set to before.
	line("nft rename chain bridge netguard format-%d format-1", guard.Format)
	line("nft add chain bridge netguard bygone && nft add rule bridge netguard bygone counter && nft insert rule bridge netguard frame jump bygone")
	e.Output("sh", "-ec", script.String())
}

// TestMigrate upgrades from an older layout, and back from a newer one, while
// connections run.
func TestMigrate(t *testing.T) {
	t.Parallel()
	for _, backend := range bothBackends {
		t.Run(backend.name, func(t *testing.T) {
			e := Start(t, append([]Option{WithIPv6()}, backend.option...)...)
			e.Network("net", Subnet("198.18.68.0/24"), Subnet("fd00:68::/64"))
			db := welcome(t, e, "db", "net", []string{"tcp/80", "udp/53"}, Label(egressRate, "50mbit"))
			web := welcome(t, e, "web", "net", nil)
			other := welcome(t, e, "other", "net", nil)
			e.Output("sh", "-c", "iptables -A OUTPUT -d 203.0.113.7 -j DROP; ip6tables -A OUTPUT -d 2001:db8::7 -j DROP")
			before := kernel(e)
			a := e.Agent(Policy("db.yaml", "name: only-web\nselect: {container: db}\ningress: [{from: [{container: web}], ports: [tcp/80]}]\n"))
			inForce := func(when string) {
				t.Helper()
				a.AwaitStatus("all is in force "+when, func(s control.Status) bool {
					d, ok := Endpoint(s, db.Container, "net")
					return ok && s.InSync && Whole(d) && len(d.Policy.Ingress) == 1 && d.Egress.RateBPS == 50e6
				})
			}
			inForce("at first")
			a.Kill()
			outdated(e, web.Container, db.Container)
			allowed := []*call{place(t, web, db, "tcp/80", db.Addr("net", 80)), place(t, web, db, "tcp/80", db.Addr6("net", 80))}
			denied := []*call{place(t, other, db, "tcp/80", db.Addr("net", 80)), place(t, other, db, "udp/53", db.Addr6("net", 53)),
				place(t, web, db, "udp/53", db.Addr("net", 53)), place(t, other, db, "tcp/80", db.Addr6("net", 80))}
			yes := map[*call]bool{}
			for _, c := range allowed {
				yes[c] = true
			}
			settle(t, allowed, yes, nil, "with the old rules")
			begin := time.Now()
			a.Start()
			inForce("after the upgrade")
			settle(t, allowed, yes, nil, "after the upgrade")
			for _, c := range allowed {
				if _, broke := c.answers(); broke > 0 {
					t.Errorf("%s broke", c)
				}
			}
			for _, c := range denied {
				if last, _ := c.answers(); !last.IsZero() || c.passed(begin) > 0 {
					t.Errorf("%s got through during the upgrade", c)
				}
			}
			now := kernel(e)
			for what, text := range now {
				if old := regexp.MustCompile(`NG-PLO|-old-|NG-FORMAT-1\b|format-1\b|bygone|of netguard`).FindString(text); old != "" {
					t.Errorf("left in %s: %q", what, old)
				}
			}
			for _, want := range []string{fmt.Sprintf("NG-FORMAT-%d ", iptables.Format)} {
				for _, list := range []string{now["iptables"] + now["iptables-legacy"], now["ip6tables"] + now["ip6tables-legacy"]} {
					if !strings.Contains(list, want) {
						t.Errorf("no %s in\n%s", want, list)
					}
				}
			}

			// A newer one's is not touched, nor cleaned up by halves.
			a.Kill()
			for what, format := range map[string]struct {
				rename string
				number int
			}{
				"rules of IPv4": {"iptables -E NG-FORMAT-%d NG-FORMAT-%d", iptables.Format},
				"rules of IPv6": {"ip6tables -E NG-FORMAT-%d NG-FORMAT-%d", iptables.Format},
				"the guard":     {"nft rename chain bridge netguard format-%d format-%d", guard.Format},
			} {
				e.Output("sh", "-c", fmt.Sprintf(format.rename, format.number, 99))
				found := kernel(e)
				a.Launch()
				r := a.Process().Wait()
				c := a.CLI("cleanup")
				for verb, r := range map[string]Result{"agent": r, "cleanup": c} {
					if r.Code != 1 || !strings.Contains(r.Stderr, "format 99") || !strings.Contains(r.Stderr, "a newer netguard") {
						t.Errorf("%s, %s: %s", verb, what, r)
					}
				}
				if d := cmp.Diff(found, kernel(e)); d != "" {
					t.Errorf("%s: it wrote all the same:\n%s", what, d)
				}
				e.Output("sh", "-c", fmt.Sprintf(format.rename, 99, format.number))
			}
			if r := a.CLI("cleanup"); !r.OK() {
				t.Errorf("cleanup: %s", r)
			}
			if d := cmp.Diff(before, kernel(e)); d != "" {
				t.Errorf("after all that and a cleanup, the kernel is not as before:\n%s", d)
			}
		})
	}
}
