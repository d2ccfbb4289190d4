package integration

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// fighter is a program that undoes something of netguard's all the time.
type fighter struct {
	name, command string
	about         string // what the finding says of it
	count         string // a file with a line for each time
	process       *Process
}

func (f *fighter) times(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(f.count)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// slowly is how often something has to be changed at a slow pace to be a fight.
const slowly = 20

var putBack = regexp.MustCompile(`put back (\d+) times`)

// TestFight: programs that undo what netguard does are recognised, backed off from,
// and reported; when they end, netguard is as quick as before.
func TestFight(t *testing.T) {
	t.Parallel()
	e := Start(t)
	e.Network("net", Subnet("198.18.80.0/24"))
	c := e.Run("web", On("net"), Label(egressRate, "50mbit"), Label(ingressRate, "50mbit"), Service("shop", "web"))
	a := e.Agent(Policy("web.yaml", "{name: web, select: {service: web}, ingress: [{from: [{cidr: 198.18.80.0/24}]}]}\n"))
	fine := func(s control.Status) bool {
		return s.InSync && AllAdmitted(s) && len(s.Findings) == 0
	}
	s := a.AwaitStatus("all is in force", fine)
	ep, _ := Endpoint(s, c, "net")
	bridge := e.ExistingNetwork("net").Bridge
	const single = "changed by somebody else"
	begins := "again and again"

	t.Run("Docker_that_makes_networks_is_none", func(t *testing.T) {
		for i := range 7 {
			e.For(t).Network(fmt.Sprintf("brief%d", i))
		}
		a.AwaitStatus("all is in force", fine)
		if strings.Contains(a.Log(), begins) {
			t.Error("Docker is taken for an enemy")
		}
	})
	fighters := []*fighter{
		{name: "rules", command: "iptables -F DOCKER-USER", about: "the rules of policies"},
		{name: "table", command: "nft delete table bridge netguard 2>/dev/null", about: "the guard"},
		{name: "qdisc", command: "tc qdisc del dev " + ep.Veth + " root 2>/dev/null", about: "the limits of web"},
		{name: "bridge", command: "ip link set dev " + bridge + " type bridge nf_call_iptables 0", about: "what bridges hand to iptables"},
	}
	lines := strings.Count(a.Log(), single)
	begun := time.Now()
	for _, f := range fighters {
		f.count = t.TempDir() + "/" + f.name
		f.process = e.Spawn("sh", "-c", fmt.Sprintf("while :; do %s; echo >>%s; sleep 0.02; done", f.command, f.count))
	}
	a.AwaitStatus("all fights are reported", func(s control.Status) bool {
		text := strings.Join(s.Findings, "\n")
		return !slices.ContainsFunc(fighters, func(f *fighter) bool { return !strings.Contains(text, "keeps changing "+f.about) })
	})
	t.Logf("all are recognised after %v", time.Since(begun))
	// They go on: each may be put back after half a second, after one, two ...
	time.Sleep(2 * time.Second)
	s = a.Status()
	lasted := time.Since(begun)
	// A machine that is busy may be slow to put things back, so that a fight counts
	// as one at a slow pace.
	most := slowly
	for wait := 500 * time.Millisecond; wait < lasted; wait *= 2 {
		most++
	}
	for _, f := range fighters {
		f.process.Kill()
		text := strings.Join(s.Findings, "\n")
		i := strings.Index(text, "keeps changing "+f.about)
		if i < 0 {
			t.Errorf("no finding about %s: %q", f.about, s.Findings)
			continue
		}
		n := 0
		if m := putBack.FindStringSubmatch(text[i:]); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
		t.Logf("%s: done %d times, put back %d times in %v", f.command, f.times(t), n, lasted)
		if n < 5 || n > most || f.times(t) < 2*n {
			t.Errorf("%s: done %d times, put back %d times in %v, want 5 to %d", f.command, f.times(t), n, lasted, most)
		}
	}
	// Each time has a line before the fight, and none in it.
	if n := strings.Count(a.Log(), single) - lines; n >= slowly*len(fighters) {
		t.Errorf("%d lines about single changes:\n%s", n, a.Log())
	}
	if n := strings.Count(a.Log(), begins); n != len(fighters) {
		t.Errorf("%d fights are logged:\n%s", n, a.Log())
	}
	// Twice the last wait, which is no longer than 10 s, and the looks at the kernel.
	for over := false; !over; {
		s = a.Status()
		if over = fine(s); !over && time.Since(begun)-lasted > time.Minute {
			t.Fatalf("not over: %q", s.Findings)
		}
	}
	t.Logf("over %v after the last change", time.Since(begun)-lasted)
	if n := strings.Count(a.Log(), "nobody changes it any more"); n != len(fighters) {
		t.Errorf("the ends of %d fights are logged:\n%s", n, a.Log())
	}
	for _, f := range fighters {
		before := strings.Count(a.Log(), single)
		at := time.Now()
		e.Output("sh", "-c", f.command)
		for strings.Count(a.Log(), single) == before {
			if time.Since(at) > 2*time.Second {
				t.Fatalf("%s: not put back %v after the fight", f.command, time.Since(at))
			}
			time.Sleep(10 * time.Millisecond) // the log has no event for what is not yet there
		}
	}
	a.AwaitStatus("all is in force", fine)
}
