package netpolicy

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"netguard/internal/changed"
)

// World is all that a rule set is made of.
type World struct {
	Endpoints []*Endpoint
	Policies  []Policy
	// Broken are policies of files with faults that have no earlier version to keep. Whom they
	// select is closed both ways.
	Broken []Broken
	// Places makes the rules tell a container by its address and its bridge together, which costs
	// a little more. Without Places, the address alone tells. Addresses in Endpoint.Away then do
	// not count, and nobody may use them.
	Places bool
	// Unpublished leaves out the rules about published ports, and their sets, which are
	// several for each rule of a policy. It counts only while no endpoint publishes a port.
	Unpublished bool
	// Held are the extra addresses that endpoints had before; see RuleSet.Held.
	Held map[Holding]bool
	// Apart are selectors of policies that fitted an endpoint before only by labels of its
	// image; see RuleSet.Apart. They keep sets of their own, so that the rules are not
	// written again for each such container that comes and goes.
	Apart map[string]bool
}

// Compile makes the rule set. It cannot fail: what could not be read closes the
// endpoints that it is about. The same input gives the same rule set.
func Compile(w World) *RuleSet { return new(Compiler).Compile(w) }

// Compiler compiles one world after the other. It makes the same rule sets as Compile, and
// works in proportion to what differs from the world before:
//
//   - the rules follow from policies, from what labels say, and from Apart. They are made
//     again when one of these changes (see frame).
//   - who an endpoint is to the rules follows from the endpoint and the rules (see subject).
//   - the members of sets change where endpoints changed (see membership).
//
// What a World refers to must not change afterwards. The zero Compiler is ready; it is not
// safe for concurrent use.
type Compiler struct {
	block int // rules, after which a chain is parted; blockRules if zero
	read  labelReader
	frame *frame
	// subjects are the endpoints of the last world. effective are the same, without the extra
	// addresses that they did not get.
	subjects, effective []*subject
	members             membership
	last                *RuleSet
}

// Compile makes the rule set of a world. Sets with the same members as in the last rule
// set share their slice.
func (c *Compiler) Compile(w World) *RuleSet {
	if c.block == 0 {
		c.block = blockRules
	}
	w.Unpublished = w.Unpublished && !slices.ContainsFunc(w.Endpoints, (*Endpoint).Publishes)
	subjects := c.look(w.Endpoints)
	labels := labelsOf(subjects)
	c.read.forget(subjects)
	fresh := c.judge(w, labels, subjects)
	states := make([]*State, len(subjects))
	for i, s := range subjects {
		states[i] = &s.state
	}
	c.frame.noteLabels(subjects, states)
	effective := contest(subjects, c.effective, states, w.Held)

	f := c.frame
	rs := &RuleSet{Generation: f.generation, Apart: f.apart, States: states, policies: f.policies, guarded: len(f.denies) > 0, index: [2]*familyIndex{&f.families[0].index, &f.families[1].index}}
	gone, came := changed.Between(c.effective, effective)
	if fresh {
		gone, came = c.effective, effective
	}
	for i, family := range rs.Families() {
		*family = f.families[i].Family
	}
	if fresh || !c.members.patch(f, gone, came, effective, c.last, rs) {
		c.members.build(f, effective, rs)
	}
	if c.last != nil {
		share(c.last, rs)
	}
	c.subjects, c.effective, c.last = subjects, effective, rs
	return rs
}

// judge makes the frame judge all subjects. fresh says that the rules are not those of the last
// world.
func (c *Compiler) judge(w World, l labels, subjects []*subject) (fresh bool) {
	for apart := w.Apart; ; {
		if !c.frame.fits(w, l) || !maps.Equal(apart, c.frame.apart) {
			c.frame, fresh = newFrame(w, l, apart), true
		}
		for i, s := range subjects {
			if s.frame != c.frame {
				subjects[i] = c.frame.judge(s)
			}
		}
		if apart = c.frame.apartOf(subjects, w.Apart); maps.Equal(apart, c.frame.apart) {
			break
		}
	}
	if fresh {
		c.frame.make(c.block)
	}
	return fresh
}

// look gives the endpoints as subjects. An endpoint that did not change keeps its subject.
func (c *Compiler) look(endpoints []*Endpoint) []*subject {
	subjects := make([]*subject, len(endpoints))
	was := c.subjects
	same := func(i, j int) bool { return was[j].source.same(endpoints[i]) }
	head, tail := 0, 0
	for head < min(len(was), len(endpoints)) && same(head, head) {
		subjects[head] = was[head]
		head++
	}
	for tail < min(len(was), len(endpoints))-head && same(len(endpoints)-1-tail, len(was)-1-tail) {
		subjects[len(endpoints)-1-tail] = was[len(was)-1-tail]
		tail++
	}
	known := map[[2]string]int{}
	for j := head; j < len(was)-tail; j++ {
		known[[2]string{was[j].ID, was[j].Network}] = j
	}
	for i := head; i < len(endpoints)-tail; i++ {
		key := [2]string{endpoints[i].ID, endpoints[i].Network}
		if j, ok := known[key]; ok && same(i, j) {
			subjects[i] = was[j]
			delete(known, key) // each is one endpoint
		} else {
			subjects[i] = c.read.subject(endpoints[i])
		}
	}
	return subjects
}

// share makes a set use the members of the earlier set of its name, if they are the same.
func share(before, after *RuleSet) {
	for i, f := range after.Families() {
		old := before.Families()[i].Sets
		for j, k := 0, 0; j < len(f.Sets) && k < len(old); {
			switch n := strings.Compare(f.Sets[j].Name, old[k].Name); {
			case n < 0:
				j++
			case n > 0:
				k++
			default:
				if !Shared(f.Sets[j].Members, old[k].Members) && slices.Equal(f.Sets[j].Members, old[k].Members) {
					f.Sets[j].Members = old[k].Members
				}
				j, k = j+1, k+1
			}
		}
	}
}

// samePolicy tells whether two policies were read from the same text: they share what they
// point to.
func samePolicy(a, b Policy) bool {
	same := a.name == b.name && a.isolates == b.isolates && Shared(a.deny, b.deny) && a.sel.equal(b.sel)
	for _, d := range Directions {
		same = same && Shared(a.rules[d], b.rules[d])
	}
	return same
}

// Shared tells whether two slices are one in memory.
func Shared[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// same tells whether two endpoints agree in everything that rules depend on.
func (e *Endpoint) same(o *Endpoint) bool {
	return e == o || e.Workload.same(&o.Workload) && e.Network == o.Network && e.Bridge == o.Bridge && e.Since == o.Since && e.Managed == o.Managed &&
		equal(e.Addrs, o.Addrs) && equal(e.Extra, o.Extra) && equal(e.Away, o.Away) && equal(e.Published, o.Published) &&
		(Shared(e.Shared, o.Shared) || slices.EqualFunc(e.Shared, o.Shared, func(a, b Workload) bool { return a.same(&b) }))
}

func (w *Workload) same(o *Workload) bool {
	return w.ID == o.ID && w.Name == o.Name && w.Project == o.Project && w.Service == o.Service && w.Unproven == o.Unproven && w.Unread == o.Unread && w.Build == o.Build &&
		changed.Same(w.Labels, o.Labels) && changed.Same(w.Inherited, o.Inherited)
}

func equal[T netip.Addr | netip.Prefix | Publish](a, b []T) bool {
	return Shared(a, b) || slices.Equal(a, b)
}
