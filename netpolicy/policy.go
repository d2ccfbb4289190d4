package netpolicy

import (
	"slices"
	"strconv"
	"strings"
)

// Policy is a policy of a file. It is valid if the file has no Faults, or is Kept.
type Policy struct {
	name, description string
	at                Place
	sel               Selector
	isolates          [2]bool // by Direction: the policy has the list, which may be empty
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

// Isolates tells whether the policy closes the endpoints that it selects in a direction. What
// policies allow there still passes.
func (p Policy) Isolates(d Direction) bool { return p.isolates[d] }

// rule is what a policy allows in one direction, or denies.
type rule struct {
	peers []peer // nil: everyone
	ports ports  // nil: every port of every protocol
	// text names the ports. matches are the matches that they become in rules, by family.
	text    string
	matches [2][]portMatch
	// except are the ports that a deny leaves out, nil for none. Such a deny is about the host
	// and every protocol.
	except ports
}

// deny is a guardrail.
type deny struct {
	rule
	direction Direction
	index     int // of the item in the policy's list
}

// everyone gives the peers. A rule without peers is about anyone.
func (r *rule) everyone() []peer {
	if r.peers == nil {
		return anyone
	}
	return r.peers
}

var anyone = []peer{{kind: peerAny}}

// canonical gives a text for a list of rules. Lists with the same text mean the same.
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

// cost counts the rules of a rule set that a list becomes on one path, in the family with more of
// them.
func cost(rules []rule) int {
	n := 0
	for _, r := range rules {
		n += len(r.everyone()) * max(len(r.matches[0]), len(r.matches[1]))
	}
	return n
}

// selectors gives the selectors of the peers that are containers.
func (r rule) selectors() []Selector {
	var s []Selector
	for _, p := range r.peers {
		if p.kind == peerContainers {
			s = append(s, p.sel)
		}
	}
	return s
}

// Peers gives the selectors of all peers that are containers, each once. A selector that matches
// nobody may be misspelt.
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
