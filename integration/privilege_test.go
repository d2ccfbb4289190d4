package integration

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// with runs a program with these capabilities and no others, as the unit does.
func with(capabilities string) []string {
	return []string{"setpriv", "--no-new-privs", "--bounding-set", "-all" + capabilities, "--inh-caps", "-all", "--"}
}

func TestPrivileges(t *testing.T) {
	t.Parallel()
	for _, backend := range bothBackends {
		t.Run(backend.name, func(t *testing.T) {
			e := Start(t, backend.option...)
			e.Network("net", Subnet("198.18.67.0/24"), Subnet("fd00:67::/64"))
			web := e.Run("web", On("net"), Doing("serve", "tcp", ":80"), Label(egressRate, "10mbit"), Label(ingressRate, "20mbit"))
			other := e.Run("other", On("net"))
			// Of the legacy backend the first look makes the table, and nothing
			// takes it away.
			e.Output("ip6tables", "-S")
			before := kernel(e)
			policy := Policy("web.yaml", "name: web\nselect: {container: web}\ningress: []\n")
			for _, test := range []struct {
				through []string
				lacks   []string
			}{
				{with(""), []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
				{with(",+net_raw,+sys_admin"), []string{"CAP_NET_ADMIN"}},
				{with(",+net_admin,+sys_admin"), []string{"CAP_NET_RAW"}},
				{[]string{"setpriv", "--reuid", "65534", "--clear-groups", "--"}, []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "run it as root"}},
			} {
				a := e.NewAgent(policy, Through(test.through...))
				a.Launch()
				r := a.Process().Wait()
				said := r.Stdout + r.Stderr
				if r.Code != 1 {
					t.Errorf("%v: %s", test.through, r)
				}
				for _, word := range test.lacks {
					if !strings.Contains(said, word) {
						t.Errorf("%v: no %s in %s", test.through, word, r)
					}
				}
				if len(test.lacks) == 1 && strings.Count(said, "CAP_") != 1 {
					t.Errorf("%v: more than %s is said to be missing: %s", test.through, test.lacks[0], r)
				}
				if d := cmp.Diff(before, kernel(e)); d != "" {
					t.Fatalf("%v: it wrote all the same:\n%s", test.through, d)
				}
			}
			// These two are enough, but for the program at each port.
			a := e.Agent(policy, Through(with(",+net_admin,+net_raw")...))
			s := a.AwaitStatus("all is in force", func(s control.Status) bool {
				w, ok := Endpoint(s, web, "net")
				o, there := Endpoint(s, other, "net")
				return ok && there && s.InSync && Whole(w) && Whole(o) && len(w.Policy.Ingress) == 1 &&
					w.Egress.RateBPS == 10e6 && s.Guard.Checksum == control.ByFragments
			})
			if len(s.Findings) > 0 {
				t.Errorf("findings: %q", s.Findings)
			}
			other.Inside().CannotReach("tcp", web.Addr("net", 80))
			late := e.Run("late", On("net"), Doing("serve", "tcp", ":80"), Label(egressRate, "10mbit"))
			a.AwaitStatus("a new one is limited", limited(late, "net", 0, 10e6))
			shall(t, []reach{{"the new one", other.Inside(), "tcp", late.Addr("net", 80)}}, true) // its server may not listen yet
			late.Remove()
			a.AwaitStatus("it is gone", func(s control.Status) bool { return len(s.Endpoints) == 2 })
			if r := a.CLI("cleanup"); !r.OK() {
				t.Errorf("cleanup: %s", r)
			}
			if r := a.Process().Wait(); !r.OK() {
				t.Errorf("the agent that was told to clean up ended with %s", r)
			}
			if d := cmp.Diff(before, kernel(e)); d != "" {
				t.Errorf("cleaned up by the agent, the kernel is not as before:\n%s", d)
			}
			// With all that the unit grants, the program is there, and an agent knows that
			// of an earlier one.
			a = e.NewAgent(policy, Through(with(",+net_admin,+net_raw,+bpf,+perfmon")...))
			attached := ""
			for range 2 {
				a.Start()
				a.AwaitStatus("programs are at the ports", func(s control.Status) bool {
					return s.InSync && AllAdmitted(s) && len(s.Endpoints) == 2 && s.Guard.Checksum == control.ByProgram
				})
				if now := programs(e); strings.Count(now, ": 1\n") != 2 || attached != "" && now != attached {
					t.Errorf("programs at the ports: %q, were %q", now, attached)
				} else {
					attached = now
				}
				a.Kill()
			}
			a.Start()
			if r := a.CLI("cleanup"); !r.OK() {
				t.Errorf("cleanup: %s", r)
			}
			a.Process().Wait()
			if d := cmp.Diff(before, kernel(e)); d != "" {
				t.Errorf("cleaned up by an agent with programs, the kernel is not as before:\n%s", d)
			}
		})
	}
}
