package netpolicy

import (
	"maps"
	"slices"
)

const stages = int(LabelIngress) + 1

// frame is a rule set without the members of its sets. It depends on the policies and on what
// labels say, and not on endpoints. It does not change.
type frame struct {
	policies []Policy
	broken   []Broken
	places   bool
	labels   labels
	// unpublished is as in World.
	unpublished bool

	groups    []*group
	selectors selectorIndex
	// apart are selectors of policies; see World.Apart.
	apart map[string]bool
	// selected has for each policy the group of endpoints that it is about. narrowed has, by
	// direction, the group of endpoints to which its rules may allow something. Only if the
	// selector is apart, these are two groups.
	selected []int
	narrowed [2][]int
	labelled [2]map[string]int // groups by the text of a label
	rules    [stages][]stageRules
	denies   []stageDeny

	scopes     [stages]string // see scope
	generation string
	families   [2]frameFamily
}

// frameFamily is the frame of a family, with the sets by what they are made of.
type frameFamily struct {
	Family   // without Sets
	specs    []*spec
	allow    []*spec // by group
	deny     []*spec
	isolated [stages]*spec
	all      []*spec // of all endpoints
	away     []*spec // of all that is away
	ports    []*spec
	splits   []*split
	index    familyIndex
}

// group is some of the endpoints. key says which. The same key gives the same set in every
// generation.
type group struct {
	number     int
	key, about string
	// For a selector: the policies that select by it, and the rules that name it as a peer.
	sel      *Selector
	policies []int
	mentions []mention
	names    [2][2]string // of the sets, by family, in an allow and in a deny
}

// stageRules are what one policy says in one direction, with whom it is about.
type stageRules struct {
	*group
	policy string
	rules  []readyRule
}

type stageDeny struct {
	*group
	policy    string
	rule      readyRule
	direction Direction
	index     int
}

// readyRule is a rule with the groups of its peers.
type readyRule struct {
	*rule
	peers []readyPeer
}

type readyPeer struct {
	*peer
	group *group // of containers
}

// fileStage and labelStage give the stages of a direction.
func fileStage(d Direction) Stage { return [...]Stage{Ingress: FileIngress, Egress: FileEgress}[d] }

func labelStage(d Direction) Stage { return [...]Stage{Ingress: LabelIngress, Egress: LabelEgress}[d] }

// fits tells whether the rules of a world are those of the frame.
func (f *frame) fits(w World, l labels) bool {
	return f != nil && f.places == w.Places && f.unpublished == w.Unpublished && slices.EqualFunc(f.policies, w.Policies, samePolicy) && f.labels.same(l) &&
		slices.EqualFunc(f.broken, w.Broken, func(a, b Broken) bool {
			return a.Policy == b.Policy && a.File == b.File && a.Select.equal(b.Select)
		})
}

// newFrame gives a frame that can judge endpoints. It has no chains and sets before make.
func newFrame(w World, l labels, apart map[string]bool) *frame {
	f := &frame{policies: slices.Clone(w.Policies), broken: slices.Clone(w.Broken), places: w.Places, unpublished: w.Unpublished, labels: l, apart: apart}
	known := make(map[string]*group, 2*len(f.policies))
	for i := range f.policies {
		f.addPolicy(i, known)
	}
	for _, d := range Directions {
		f.labelled[d] = map[string]int{}
		for _, text := range slices.Sorted(maps.Keys(l.rules[d])) { // the order of containers must not count
			g := f.group("label "+d.String()+" "+text, "containers with one label "+policyLabels[d], known)
			f.labelled[d][text] = g.number
			f.rules[labelStage(d)] = append(f.rules[labelStage(d)], stageRules{g, "label " + policyLabels[d], f.ready(l.rules[d][text], known)})
		}
	}
	return f
}

func (f *frame) addPolicy(i int, known map[string]*group) {
	p := &f.policies[i]
	g := f.selector(&p.sel, known)
	g.policies = append(g.policies, i)
	f.selected = append(f.selected, g.number)
	for _, d := range Directions {
		narrowed := g
		if p.isolates[d] {
			if f.apart[g.key] { // see isolate
				narrowed = f.group(g.key+" "+d.String(), g.about, known)
			}
			ready := f.ready(p.rules[d], known)
			f.rules[fileStage(d)] = append(f.rules[fileStage(d)], stageRules{narrowed, p.name, ready})
			for j, r := range ready {
				for k, peer := range r.peers {
					if peer.group != nil && peer.sel.labelled() {
						order := ((i*2+int(d))*maxRules+j)*maxPeers + k
						peer.group.mentions = append(peer.group.mentions, mention{order, &peer.sel, p.name})
					}
				}
			}
		}
		f.narrowed[d] = append(f.narrowed[d], narrowed.number)
	}
	for j := range p.deny {
		d := &p.deny[j]
		f.denies = append(f.denies, stageDeny{g, p.name, f.readyRule(&d.rule, known), d.direction, d.index})
	}
}

// group gives the group of a key.
func (f *frame) group(key, about string, known map[string]*group) *group {
	g := known[key]
	if g == nil {
		g = &group{number: len(f.groups), key: key, about: about}
		known[key] = g
		f.groups = append(f.groups, g)
	}
	return g
}

// selector gives the group of the managed endpoints that a selector fits.
func (f *frame) selector(s *Selector, known map[string]*group) *group {
	text := s.String()
	if g := known[text]; g != nil {
		return g
	}
	about := "containers with " + text
	if text == everyContainer {
		about = text
	}
	g := &group{number: len(f.groups), key: "selector " + text, about: about, sel: s}
	known[text] = g
	f.groups = append(f.groups, g)
	f.selectors.add(g)
	return g
}

func (f *frame) ready(rules []rule, known map[string]*group) []readyRule {
	out := make([]readyRule, len(rules))
	for i := range rules {
		out[i] = f.readyRule(&rules[i], known)
	}
	return out
}

func (f *frame) readyRule(r *rule, known map[string]*group) readyRule {
	all := r.everyone()
	out := readyRule{r, make([]readyPeer, len(all))}
	for i := range all {
		out.peers[i].peer = &all[i]
		if all[i].kind == peerContainers {
			out.peers[i].group = f.selector(&all[i].sel, known)
		}
	}
	return out
}

// apartOf gives known, and the selectors of policies that fit some subject only by labels of its
// image.
func (f *frame) apartOf(subjects []*subject, known map[string]bool) map[string]bool {
	apart := known
	for _, s := range subjects {
		for _, g := range s.withheld {
			if g := f.groups[g]; len(g.policies) > 0 && !apart[g.key] {
				if len(apart) == len(known) {
					apart = make(map[string]bool, len(known)+1)
					maps.Copy(apart, known)
				}
				apart[g.key] = true
			}
		}
	}
	return apart
}

// make makes the chains and sets.
func (f *frame) make(block int) {
	f.scope()
	bothFamilies(func(i int) { f.families[i] = f.build(i, block) })
	// The name of an entry is a hash of all that it leads to.
	f.generation = digest(generationLen, slices.Concat(f.families[0].Entry[:], f.families[1].Entry[:])...)
}

// bothFamilies does something for both families, at once.
func bothFamilies(do func(family int)) {
	done := make(chan struct{})
	go func() { do(1); close(done) }()
	do(0)
	<-done
}

// scope names what the members of the scoped sets depend on, besides endpoints: whom each stage
// closes.
func (f *frame) scope() {
	kind := Addrs
	if f.places {
		kind = Places
	}
	for s := range f.scopes {
		parts := []string{kind.String()}
		for _, d := range Directions {
			switch Stage(s) {
			case fileStage(d):
				for i, p := range f.policies {
					if p.isolates[d] {
						parts = append(parts, f.groups[f.selected[i]].key)
					}
				}
			case labelStage(d):
				for _, b := range f.broken { // closes both ways, as a label without room does
					parts = append(parts, "broken "+b.Select.String())
				}
				for _, over := range Directions {
					for text := range f.labels.over[over] {
						parts = append(parts, "over "+over.String()+" "+text)
					}
				}
			}
		}
		slices.Sort(parts)
		f.scopes[s] = digest(generationLen, slices.Compact(parts)...)
	}
}
