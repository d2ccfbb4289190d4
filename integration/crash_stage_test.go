package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// seeded gives chance that can be repeated (NETGUARD_SEED).
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("NETGUARD_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("NETGUARD_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// scene is where agents crash: containers that talk all the time, with limits and
// policies.
type scene struct {
	e      *Engine
	book   *rulebook
	guests []*guest
	calls  []*call
	plain  string // netguard as it is
	faulty string // netguard that ends or fails as it is told
	dir    string
}

const crashNet = "net"

func newScene(t *testing.T, options ...Option) *scene {
	e := Start(t, append([]Option{WithIPv6()}, options...)...)
	e.Network(crashNet, Subnet("198.18.70.0/24"), Subnet("fd00:70::/64"))
	s := &scene{e: e, faulty: e.FaultyBinary(), dir: t.TempDir()}
	limits := [][]ContainerOption{{Label(egressRate, "90mbit")}, {Label(ingressRate, "90mbit"), Label(egressRate, "80mbit")}, {Label(connectionsLabel, "1000")}, {Label(allowLabel, "198.18.70.200")}}
	for i, name := range crashNames {
		s.guests = append(s.guests, welcome(t, e, name, crashNet, []string{"tcp/80", "udp/53"}, limits[i]...))
	}
	s.book = newRulebook(e, e.NewAgent())
	s.plain = s.book.a.Binary
	for i, from := range s.guests {
		for j, to := range s.guests {
			if from != to {
				six := map[bool]func(string, uint16) string{false: to.Addr, true: to.Addr6}
				s.calls = append(s.calls, place(t, from, to, "tcp/80", six[(i+j)%2 == 0](crashNet, 80)), place(t, from, to, "udp/53", six[(i+j)%2 == 1](crashNet, 53)))
			}
		}
	}
	return s
}

var crashNames = []string{"ann", "bob", "cid", "dot"}

// agent chooses what runs at the next start, and with which faults.
func (s *scene) agent(binary string, env ...string) {
	s.book.a.Binary, s.book.a.Env = binary, env
}

// settled tells that everything posted is in force.
func (s *scene) settled(st control.Status) bool {
	return s.book.inForce(st) && AllAdmitted(st) && len(st.Findings) == 0
}

// allowed gives the calls that each of these allows, and those that each denies.
func (s *scene) allowed(all ...*society) (open, closed map[*call]bool) {
	open, closed = map[*call]bool{}, map[*call]bool{}
	for _, c := range s.calls {
		protocol, _, _ := strings.Cut(c.service, "/")
		n := 0
		for _, soc := range all {
			if soc.allows(c.from.Name, c.to.Name, protocol) {
				n++
			}
		}
		open[c], closed[c] = n == len(all), n == 0
	}
	return open, closed
}

// watch looks at the calls from now on. What it returns tells what went wrong: an
// open one that broke, a closed one that got through.
func (s *scene) watch(open, closed map[*call]bool) func() []string {
	breaks := map[*call]int{}
	since := time.Now()
	for _, c := range s.calls {
		_, breaks[c] = c.answers()
		c.passed(since)
	}
	return func() (wrong []string) {
		for _, c := range s.calls {
			_, broke := c.answers()
			switch n := c.passed(since); {
			case open[c] && broke != breaks[c]:
				wrong = append(wrong, fmt.Sprintf("%s is allowed, and broke", c))
			case closed[c] && n > 0:
				wrong = append(wrong, fmt.Sprintf("%s is denied, and %d words got through", c, n))
			}
		}
		return wrong
	}
}

// copied is a society with the same rules.
func (s *society) copied() *society {
	return &society{names: s.names, in: maps.Clone(s.in), out: maps.Clone(s.out), deny: maps.Clone(s.deny)}
}

// vary is what listings say of the same thing in other words: numbers that the
// kernel gives, and what traffic leaves.
var vary = regexp.MustCompile(`(?m)^\d+: (ngifb)|\b(initval|hashsize|bucketsize|direct_qlen|index|timeout|expires|packets|bytes) \S+|^add ng[46]-(?:cut|began) .*$| ref \d+ bind \d+| installed .*sec| (used|firstused) \d+ sec`)

// ifbMAC is one that the kernel makes up.
var ifbMAC = regexp.MustCompile(`(?m)^(\d+: ngifb.*\n\s+link/ether) \S+`)

// filled are the elements of sets that rules fill, and of the one whose numbers the
// kernel gives, with the white space before them.
var filled = regexp.MustCompile(`(set \S+ \{[^{}]*\bdynamic\b[^{}]*?|set programs \{[^{}]*?)\s*elements = \{[^{}]*\}`)

// unfilled is a listing of nft without them.
func unfilled(text string) string { return filled.ReplaceAllString(text, "$1") }

// elements are those of a set, which nft lists as they were added.
var elements = regexp.MustCompile(`(?s)elements = \{([^{}]*)\}`)

func sortElements(text string) string {
	return elements.ReplaceAllStringFunc(text, func(list string) string {
		all := strings.Split(elements.FindStringSubmatch(list)[1], ",")
		for i := range all {
			all[i] = strings.TrimSpace(all[i])
		}
		slices.Sort(all)
		return "elements = " + strings.Join(all, "\n")
	})
}

// chains are those of a table, which nft lists as they were added.
var chains = regexp.MustCompile(`(?ms)^\tchain .*?^\t\}\n`)

func sortChains(text string) string {
	all := chains.FindAllString(text, -1)
	slices.Sort(all)
	return chains.ReplaceAllStringFunc(text, func(string) string {
		next := all[0]
		all = all[1:]
		return next
	})
}

// held is all that the kernel holds, in an order of its own, so that two of them
// can be compared.
func held(e *Engine) map[string][]string {
	lists := kernel(e)
	delete(lists, "nftables") // iptables' part of it is listed by iptables
	lists["guard"] = ""
	for _, listing := range []string{"table bridge netguard 2>/dev/null", "table inet netguard 2>/dev/null", "table arp netguard 2>/dev/null", "tables | sort"} {
		text := counters.ReplaceAllString(e.Output("sh", "-c", "nft list "+listing+"; true"), "")
		lists["guard"] += sortChains(sortElements(unfilled(text))) + "\n"
	}
	// iptables lists the kernel's own chains whether they are there or not.
	lists["base chains"] = e.Output("sh", "-c", `nft list chains | awk '/^table/ { table = $2 " " $3 } /^\tchain/ { chain = $2 } /hook/ { print table, chain, $0 }' | sort`)
	lists["tc"] = e.Output("sh", "-c", `for d in $(ip -o link show | grep -oE '(veth|ngifb)[0-9a-f]+' | sort -u); do
		echo "dev $d"; tc class show dev $d | sort; tc filter show dev $d; tc filter show dev $d ingress; done`)
	lists["links"] = ifbMAC.ReplaceAllString(lists["links"], "$1")
	for _, name := range []string{"links", "bridge ports"} { // one line a device
		lists[name] = strings.ReplaceAll(lists[name], "\n    ", " ")
	}
	out := map[string][]string{}
	for name, text := range lists {
		var lines []string
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(vary.ReplaceAllString(line, "$1"), " \n"); strings.TrimSpace(line) != "" {
				lines = append(lines, line)
			}
		}
		switch name {
		case "ipset", "qdiscs", "neighbours", "links", "bridge ports", "FDB":
			slices.Sort(lines)
		}
		out[name] = lines
	}
	return out
}

// same compares what the kernel holds with what it should.
func same(t testing.TB, e *Engine, want map[string][]string, told string) {
	t.Helper()
	if d := cmp.Diff(want, held(e)); d != "" {
		t.Errorf("%s: the kernel holds something else than after a run that nobody disturbed:\n%s", told, d)
	}
}

// writes reads the log of writes that an agent was told to keep.
func writes(t testing.TB, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		names = append(names, name)
	}
	return names
}

func (s *scene) file(name string) string { return filepath.Join(s.dir, name) }
