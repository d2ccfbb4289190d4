package iptables

import (
	"fmt"
	"slices"
	"strings"

	"netguard/internal/fault"
	"netguard/netpolicy"
)

const dockerUser = "DOCKER-USER"

// anchors are the rules that lead to the static chains. What the host sends to itself is not
// netguard's business. All that arrives by the loopback device is such traffic. What leaves by it
// may go to a container: the kernel chose the device before it translated the address of a
// published port, and rules still see that device. The chain tells them apart (see itself).
var anchors = [4][]string{
	netpolicy.Forward: {"-j", chainForward},
	netpolicy.Input:   {"!", "-i", "lo", "-j", chainInput},
	netpolicy.Output:  {"-j", chainOutput},
	standby:           {"-m", "conntrack", "--ctstate", "NEW", "-j", chainForward},
}

// standby is an anchor in FORWARD beside the one in DOCKER-USER. Whenever Docker makes a
// network, it takes its jump to DOCKER-USER away for some milliseconds, to put it first
// again. Connections that begin meanwhile meet the standby.
const standby netpolicy.Path = netpolicy.Output + 1

// chainOf is where an anchor leads to.
func chainOf(path netpolicy.Path) string {
	if path == standby {
		return chainForward
	}
	return staticChains[path]
}

// place gives the chain for an anchor. The anchor is the first rule there, so that no rule
// accepts a packet before it. For forwarded packets the chain is DOCKER-USER, if packets come
// there first: Docker keeps its contents when it writes its rules anew.
func (t *table) place(path netpolicy.Path) string {
	switch path {
	case netpolicy.Input:
		return "INPUT"
	case netpolicy.Output:
		return "OUTPUT"
	case standby:
		if t.place(netpolicy.Forward) == dockerUser {
			return "FORWARD"
		}
		return ""
	}
	if t.has(dockerUser) {
		for _, r := range t.rules["FORWARD"] {
			if r == "-j "+dockerUser {
				return dockerUser
			}
			if !leads(r, chainForward) && !slices.Contains(dockerFirst, r) {
				break
			}
		}
	}
	return "FORWARD"
}

// first tells whether an anchor comes before all rules of a chain that could let a packet
// pass. Docker's own jumps do no harm before the standby.
func first(path netpolicy.Path, rules []string) bool {
	for _, r := range rules {
		if r == join(anchors[path]...) {
			return true
		}
		if path != standby || !slices.Contains(dockerFirst, r) {
			return false
		}
	}
	return false
}

// dockerFirst are the jumps that Docker puts first. Their chains accept nothing themselves.
var dockerFirst = []string{"-j " + dockerUser, "-j DOCKER-ISOLATION-STAGE-1"}

// anchoring is what has to be done so that the anchor of a path stands in its place and nowhere
// else.
type anchoring struct {
	path  netpolicy.Path
	chain string
	// insert says that the anchor is not the first rule there. again counts the anchors to remove
	// further down.
	insert bool
	again  int
	// elsewhere are jumps to the same chain in other chains, or in other words.
	elsewhere []jump
}

// jump is a rule of a foreign chain that leads to one of netguard's.
type jump struct{ chain, rule string }

// leads tells whether a rule leads to a chain, whatever else it says.
func leads(rule, chain string) bool {
	for _, how := range []string{"-j ", "-g "} {
		if rest, ok := strings.CutSuffix(rule, how+chain); ok && (rest == "" || strings.HasSuffix(rest, " ")) {
			return true
		}
	}
	return false
}

// anchorOf tells which anchor a rule is, if any. A rule of an older version may be worded in
// another way. It is the anchor of its path, too.
func anchorOf(rule string) (netpolicy.Path, bool) {
	for path, words := range anchors {
		if rule == join(words...) {
			return netpolicy.Path(path), true
		}
	}
	for path, chain := range staticChains {
		if leads(rule, chain) {
			return netpolicy.Path(path), true
		}
	}
	return 0, false
}

func (a anchoring) done() bool { return !a.insert && a.again == 0 && len(a.elsewhere) == 0 }

func (a anchoring) String() string {
	if a.insert {
		return fmt.Sprintf("the jump to %s is not the first rule of %s", chainOf(a.path), a.chain)
	}
	return fmt.Sprintf("there is more than one jump to %s", chainOf(a.path))
}

// anchorings compares the anchors of a table with where they should be.
func (t *table) anchorings() []anchoring {
	foreign := slices.DeleteFunc(slices.Clone(t.chains), ownsChain)
	var all []anchoring
	for path := range anchors {
		a := anchoring{path: netpolicy.Path(path), chain: t.place(netpolicy.Path(path))}
		spec := join(anchors[path]...)
		a.insert = a.chain != "" && !first(a.path, t.rules[a.chain])
		for _, name := range foreign {
			kept := a.insert // if none is to be inserted, one stays
			for _, r := range t.rules[name] {
				of, ok := anchorOf(r)
				switch {
				case !ok || of != a.path:
				case name != a.chain && name == dockerUser && r == spec:
					// It stays: Docker leads packets to DOCKER-USER again in a moment.
				case name != a.chain || r != spec:
					a.elsewhere = append(a.elsewhere, jump{name, r})
				case !kept:
					kept = true
				default:
					a.again++
				}
			}
		}
		if !a.done() {
			all = append(all, a)
		}
	}
	return all
}

// setAnchor inserts an anchor in its place. After that, moves removes it from the old one.
func (b *backend) setAnchor(i int, a anchoring) error {
	if !a.insert || a.again > 0 {
		return nil
	}
	*b.forked++
	program, err := b.fam[i].rule()
	if err == nil {
		err = fault.Write("iptables insert", func() error { return program.Insert(filter, a.chain, 1, anchors[a.path]...) })
	}
	if err != nil {
		return fmt.Errorf("insert jump into %s: %w", a.chain, commandError(err))
	}
	return nil
}

// moves are the commands that need a transaction. Equal rules cannot be told apart, so all of
// them go and one comes back as the first.
func (a anchoring) moves() []string {
	var lines []string
	for _, j := range a.elsewhere {
		lines = append(lines, "-D "+j.chain+" "+j.rule)
	}
	if a.again == 0 {
		return lines
	}
	spec := join(anchors[a.path]...)
	n := a.again
	if !a.insert {
		n++
	}
	lines = append(lines, slices.Repeat([]string{"-D " + a.chain + " " + spec}, n)...)
	return append(lines, "-I "+a.chain+" 1 "+spec)
}

// removals are the commands that take all of netguard's out of a table, but for the marks.
func (t *table) removals() []string {
	var lines []string
	for _, name := range t.chains {
		for _, r := range t.rules[name] {
			if _, ok := anchorOf(r); ok && !ownsChain(name) {
				lines = append(lines, "-D "+name+" "+r)
			}
		}
	}
	own := slices.DeleteFunc(t.own(), func(c string) bool { return slices.Contains(marks, c) })
	return append(lines, removalOf(own)...)
}

// removalOf empties all chains first, because they lead to one another.
func removalOf(chains []string) []string {
	var lines []string
	for _, c := range chains {
		lines = append(lines, "-F "+c)
	}
	for _, c := range chains {
		lines = append(lines, "-X "+c)
	}
	return lines
}

// transaction is an input for iptables-restore: chains with all their rules, and then single
// commands.
func transaction(chains []chain, lines []string) string {
	out := []byte("*" + filter + "\n")
	for _, c := range chains {
		out = append(out, ":"+c.name+" - [0:0]\n"...)
	}
	for _, c := range chains {
		for _, r := range c.rules {
			out = append(out, "-A "+c.name+" "+r+"\n"...)
		}
	}
	for _, l := range lines {
		out = append(out, l+"\n"...)
	}
	return string(append(out, "COMMIT\n"...))
}
