package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	. "netguard/integration/harness"
)

// synAgain is after how many milliseconds Linux sends a SYN again, and asks again for
// a neighbour that did not answer.
const synAgain = 1000

// TestFirstSYN has containers whose first instruction connects, while the agent is
// stopped: they are refused. When it goes on, the connection is there at once, by what
// was sent before, not after the second in which the kernel would send it again.
func TestFirstSYN(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6())
	a := e.Agent()
	e.Network("net", Subnet("198.18.94.0/24"), Subnet("fd00:94::/64"))
	peer := e.Run("peer", On("net"), Doing("serve", "tcp", ":80"))
	a.AwaitStatus("the peer is admitted", AllAdmitted)
	for name, to := range map[string]string{"IPv4": peer.Addr("net", 80), "IPv6": peer.Addr6("net", 80)} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for i := range 5 { // a busy machine may take a second for anything
				r := asksWhileStopped(t, e.For(t), a, fmt.Sprintf("first-%s-%d", name, i), to)
				if r.Answered() && r.TookMS < synAgain {
					t.Logf("after it was refused: %s", r)
					return
				}
				got = append(got, r.String())
			}
			t.Errorf("the first packet was lost each time: %s", strings.Join(got, ", "))
		})
	}
}

// asksWhileStopped starts a container that connects, with the agent stopped until the
// container has sent and was refused.
func asksWhileStopped(t *testing.T, e *Engine, a *Agent, name, to string) Reach {
	t.Helper()
	c := e.Create(name, On("net"), Doing("connect", "tcp", to, "10s"))
	agent := a.For(t).Process()
	agent.Signal(syscall.SIGSTOP)
	err := c.TryStart(t.Context())
	if err == nil {
		inside := c.Inside()
		for inside.Output("ss", "-Htn", "state", "syn-sent") == "" && c.Inspect().State.Running {
		}
	}
	agent.Signal(syscall.SIGCONT)
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	var got Reach
	if err := json.Unmarshal([]byte(strings.TrimSpace(c.Logs())), &got); err != nil {
		t.Fatalf("%s said %q: %v", name, c.Logs(), err)
	}
	c.Remove()
	return got
}

// TestSoakFirstSYN has containers whose first instruction connects, alone and several at
// a time, with a live agent: all have their first packet through. On a machine that has
// nothing left for the agent it only tells how many do.
func TestSoakFirstSYN(t *testing.T) {
	soaking(t)
	firstSYN(t, startsOfSoak, startsOfSoak/5)
}

func firstSYN(t *testing.T, idle, busy int) {
	q := newQuickStage(t)
	for _, c := range []struct {
		count, atATime int
		busy           bool
	}{{idle, 1, false}, {idle, 8, false}, {busy, 1, true}, {busy, 8, true}} {
		t.Run(fmt.Sprintf("%d_starts_%d_at_a_time,_cores_busy_%v", c.count, c.atATime, c.busy), func(t *testing.T) {
			all := q.starts(t, c.count, c.atATime, c.busy)
			half, most, longest := quantiles(all, func(s start) float64 { return s.first })
			n := lost(all)
			t.Logf("connected after %.1f, %.1f, %.1f ms (half, 99 of 100, all); %d lost their first SYN", half, most, longest, n)
			if n > 0 && !c.busy {
				t.Errorf("%d of %d lost their first SYN", n, len(all))
			}
		})
	}
}
