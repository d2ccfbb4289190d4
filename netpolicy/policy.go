package netpolicy

import (
	"slices"
	"strconv"
	"strings"
)

// Policy is a policy that is valid: only Load makes one.
type Policy struct {
	name, description string
	at                Place
	sel               Selector
	isolates          [2]bool // by Direction: the list is there, though maybe empty
	rules             [2][]rule
	deny              []deny
}

// Name is unique among the policies of a Catalog without faults.
func (p Policy) Name() string { return p.name }

// Description is the operator's, "" if there is none.
func (p Policy) Description() string { return p.description }

// At is where the policy starts.
func (p Policy) At() Place { return p.at }

// Select is whom the policy is about.
func (p Policy) Select() Selector { return p.sel }

// Isolates tells whether the endpoints that the policy selects are closed in a
// direction, but for what policies allow.
func (p Policy) Isolates(d Direction) bool { return p.isolates[d] }

// rule is what a policy allows in one direction, or denies.
type rule struct {
	peers []peer // nil: everyone
	ports ports  // nil: every port of every protocol
	// text is the ports as a text, and matches by family what they become in rules.
	text    string
	matches [2][]portMatch
	// except are ports that a deny leaves out, nil for none. Then it is about the host
	// and every protocol.
	except ports
}

// deny is a guardrail.
type deny struct {
	rule
	direction Direction
	index     int // of the item in the policy's list
}

// everyone gives the peers, a rule without any being about anyone.
func (r *rule) everyone() []peer {
	if r.peers == nil {
		return anyone
	}
	return r.peers
}

var anyone = []peer{{kind: peerAny}}

// canonical is a text that two lists of rules share only if they mean the same.
func canonical(rules []rule) string {
	var b strings.Builder
	for _, r := range rules {
		b.WriteString("rule\n")
		for _, p := range r.everyone() {
			b.WriteString(strconv.Quote(p.canonical()) + "\n")
		}
		b.WriteString(strconv.Quote(r.text) + "\n")
	}
	return b.String()
}

// cost is the number of rules of a rule set that a list becomes on one path, in
// the family that has more of them.
func cost(rules []rule) int {
	n := 0
	for _, r := range rules {
		n += len(r.everyone()) * max(len(r.matches[0]), len(r.matches[1]))
	}
	return n
}

// selectors gives the selectors of container peers, for a look at what a policy
// names.
func (r rule) selectors() []Selector {
	var s []Selector
	for _, p := range r.peers {
		if p.kind == peerContainers {
			s = append(s, p.sel)
		}
	}
	return s
}

// Peers gives the selectors of all containers that the policy names besides its
// own, without duplicates: one that matches nobody may be misspelt.
func (p Policy) Peers() []Selector {
	var all []Selector
	add := func(r rule) {
		for _, s := range r.selectors() {
			if !slices.ContainsFunc(all, s.equal) {
				all = append(all, s)
			}
		}
	}
	for _, d := range Directions {
		for _, r := range p.rules[d] {
			add(r)
		}
	}
	for _, d := range p.deny {
		add(d.rule)
	}
	return all
}
