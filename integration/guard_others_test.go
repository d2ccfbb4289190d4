package integration

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// rss is the agent's memory, in bytes.
func rss(t *testing.T, a *Agent) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.Process().PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no VmRSS in %s", status)
	return 0
}

// others makes a bridge with a port, and tables, that are none of netguard's
// business, and gives what lists them.
func others(e *Engine) func() string {
	e.Output("sh", "-ec", `
		ip link add mine0 type bridge && ip link set mine0 addrgenmode none && ip link set mine0 up && ip addr add 198.18.49.1/24 dev mine0
		ip link add mine1 type veth peer name mine2 && ip link set mine1 master mine0
		ip link set mine1 addrgenmode none && ip link set mine2 addrgenmode none
		ip link set mine1 up && ip link set mine2 up
		bridge fdb add 02:00:00:00:99:01 dev mine1 master static
		ip neigh add 198.18.49.9 lladdr 02:00:00:00:99:09 dev mine0 nud permanent
		nft add table bridge mine && nft add chain bridge mine c '{ type filter hook prerouting priority -500; }'
		nft add rule bridge mine c ether type 0x88cc counter drop
		nft add table inet mine && nft add set inet mine s '{ type ipv4_addr; }' && nft add element inet mine s '{ 203.0.113.9 }'`)
	counted := regexp.MustCompile(`packets \d+ bytes \d+`)
	return func() string {
		return counted.ReplaceAllString(e.Output("sh", "-ec", `
			bridge -d link show dev mine1
			bridge fdb show dev mine1 | grep -v self | sort
			ip -o addr show dev mine0
			ip neigh show dev mine0 nud permanent
			tc qdisc show dev mine1
			nft -a list table bridge mine
			nft -a list table inet mine`), "")
	}
}

// watchOthers hears each message of the kernel about other software's links, and
// gives those that came since the call before.
func watchOthers(e *Engine) func(t *testing.T) []string {
	watchers := []*Process{e.Spawn("ip", "-o", "monitor", "link", "neigh", "address"), e.Spawn("bridge", "monitor", "all")}
	said := make([]int, len(watchers))
	changes := 0
	const marks = "02:00:00:00:98:" // the end of the last one may be heard after this call
	return func(t *testing.T) []string {
		t.Helper()
		// A change that the test makes itself shows that they hear, and that they
		// have heard all before it.
		// At first they may not listen yet.
		changes++
		mark := fmt.Sprintf("%s%02x", marks, changes)
		heard := func(w *Process) bool { return strings.Contains(w.Stdout(), mark) }
		for until := deadline(); !heard(watchers[0]) || !heard(watchers[1]); {
			e.Output("sh", "-ec", "bridge fdb add "+mark+" dev mine1 master static; bridge fdb del "+mark+" dev mine1 master; "+
				"ip neigh add 198.18.49.8 lladdr "+mark+" dev mine0; ip neigh del 198.18.49.8 dev mine0")
			if time.Now().After(until) {
				t.Fatal("the kernel's messages are not heard")
			}
		}
		var out []string
		for i, w := range watchers {
			lines := strings.Split(w.Stdout(), "\n")
			for _, line := range lines[said[i]:] {
				if strings.Contains(line, "mine") && !strings.Contains(line, marks) && !strings.Contains(line, "198.18.49.8") {
					out = append(out, line)
				}
			}
			said[i] = len(lines) - 1
		}
		return out
	}
}

func TestGuardOthers(t *testing.T) {
	t.Parallel()
	e := Start(t)
	mine := others(e)
	heard := watchOthers(e)
	n := e.Network("net", Subnet("198.18.40.0/24"))
	from, to := enter(t, e.Run("from", On("net")), "net"), enter(t, e.Run("to", On("net")), "net")
	// A port that somebody has put into Docker's own bridge.
	e.Output("sh", "-ec", "ip link add guest type veth peer name guest0 && ip link set guest master "+n.Bridge+" up && ip link set guest0 up")
	port := func() string {
		return e.Output("bridge", "-d", "link", "show", "dev", "guest")
	}
	before, portBefore := mine(), port()
	heard(t) // of its making
	same := func(when string) {
		t.Helper()
		if lines := heard(t); len(lines) > 0 {
			t.Errorf("%s other software's things were touched:\n%s", when, strings.Join(lines, "\n"))
		}
		if d := cmp.Diff(before, mine()); d != "" {
			t.Errorf("%s other software's things are not as before:\n%s", when, d)
		}
	}
	a := e.Agent(Config("networks: {uplinks: [guest]}\n"))
	a.AwaitStatus("both are admitted", AllAdmitted)
	same("while the guard is there")
	for _, at := range attack.All[:20] {
		from.delivers(t, to, at.Frame(attack.Scene{Attacker: from.party(), Victim: to.party(), Third: to.party(), Gateway: gateway(t, e, n, to.Container)}))
	}
	if got := total(violations(t, a, from)[0]); got == 0 {
		t.Error("no attack was refused")
	}
	a.Restart()
	a.AwaitStatus("both are admitted", AllAdmitted)
	same("while the guard is at work")
	t.Run("a_port_of_nobody_in_Dockers_bridge_is_quarantined", func(t *testing.T) {
		a.WriteConfig("") // the bridge is taken, and nobody vouches for the port any more
		a.AwaitStatus("it is an unknown port", func(s control.Status) bool {
			return strings.Contains(port(), "locked on")
		})
	})
	if r := a.CLI("cleanup"); !r.OK() {
		t.Fatalf("clean up: %s", r)
	}
	same("after netguard")
	if d := cmp.Diff(portBefore, port()); d != "" {
		t.Errorf("the port in Docker's bridge is not as before:\n%s", d)
	}
}

// total is of all kinds that there are.
func total(v control.Violations) (sum uint64) {
	for kinds, i := reflect.ValueOf(v), 0; i < kinds.NumField(); i++ {
		sum += kinds.Field(i).Uint()
	}
	return sum
}

// A container that comes and goes is never taken for an attacker.
func TestGuardCycles(t *testing.T) {
	t.Parallel()
	cycles(t, 20)
}

func TestSoakGuard(t *testing.T) {
	soaking(t)
	cycles(t, 500)
}

func cycles(t *testing.T, n int) {
	e := Start(t)
	a := e.Agent()
	e.Network("home", Subnet("198.18.41.0/24"))
	e.Network("net", Subnet("198.18.42.0/24"), Subnet("fd00:42::/64"))
	peer := e.Run("peer", On("net"), Doing("serve", "tcp", ":80", "udp", ":80"))
	c := e.Run("moving", On("home"), Doing("serve", "tcp", ":80"))
	for i := range n {
		c.Connect("net", fmt.Sprintf("198.18.42.%d", 10+i%200))
		in := c.Inside()
		in.CanReach("udp", peer.Addr("net", 80))
		in.CanReach("tcp", peer.Addr6("net", 80))
		peer.Inside().CanReach("tcp", c.Addr("net", 80))
		for _, ep := range a.Status().Endpoints {
			if total(ep.Violations) != 0 {
				t.Fatalf("cycle %d: %s on %s is said to have sent what it must not: %+v", i, ep.Container, ep.Network, ep.Violations)
			}
		}
		c.Disconnect("net")
	}
	if line := lineWith(a.Log(), "must not"); line != "" {
		t.Errorf("a false alert: %s", line)
	}
	if line := lineWith(a.Log(), "the guard was changed"); line != "" {
		t.Errorf("somebody is said to have changed the guard: %s", line)
	}
}
