package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Delta is what changes from one rule set to another, in people's words.
type Delta struct {
	Endpoints   []EndpointChange   `json:"endpoints" yaml:"endpoints"`
	Connections []ConnectionChange `json:"connections" yaml:"connections"`
	// Published are the published ports by which docker-proxy's connections change.
	Published []PublishedChange `json:"published,omitempty" yaml:"published,omitempty"`
	// Truncated says that there was too much to compare. Connections may be missing, endpoints
	// are not. Fewer differences take less work.
	Truncated bool `json:"truncated,omitempty" yaml:"truncated,omitempty"`
}

// EndpointChange is an endpoint that is closed in a direction where it was open,
// or open where it was closed, or closed by other policies.
type EndpointChange struct {
	Container string   `json:"container" yaml:"container"`
	Network   string   `json:"network" yaml:"network"`
	Direction string   `json:"direction" yaml:"direction"`
	Before    []string `json:"before" yaml:"before"` // policies that close it; none is open
	After     []string `json:"after" yaml:"after"`
	Sentence  string   `json:"sentence" yaml:"sentence"`
}

// ConnectionChange is connections that were allowed and no longer are, or the other way round.
// Each of From may now reach, or no longer reach, each other one of To. Networks are those that
// both are on, or that the one container among them leaves by.
type ConnectionChange struct {
	From     []string `json:"from" yaml:"from"`
	To       []string `json:"to" yaml:"to"`
	Networks []string `json:"networks" yaml:"networks"`
	Family   string   `json:"family" yaml:"family"` // "IPv4", "IPv6", or "" for both
	Service  string   `json:"service" yaml:"service"`
	Allowed  bool     `json:"allowed" yaml:"allowed"` // after the change
	// Policies decide after the change: they deny, close an end, or allow. If no policy is about
	// the connections any more, they are those that decided before.
	Policies []string `json:"policies" yaml:"policies"`
	open     bool     // no policy decides after the change
	Sentence string   `json:"sentence" yaml:"sentence"`
}

// Empty tells whether nothing changes.
func (d Delta) Empty() bool {
	return len(d.Endpoints)+len(d.Connections)+len(d.Published) == 0 && !d.Truncated
}

// Plan compares two rule sets of the same endpoints: who is closed or open, and which connections
// change between endpoints of one network, with the host, and with the world. It is exact for
// services and addresses. What no rule tells apart is compared once. host are the known addresses
// of the host.
func Plan(before, after *RuleSet, endpoints []*Endpoint, host []netip.Addr) Delta {
	return plan(before, after, endpoints, host, maxWork)
}

func plan(before, after *RuleSet, endpoints []*Endpoint, host []netip.Addr, work int) Delta {
	d := Delta{Endpoints: []EndpointChange{}, Connections: []ConnectionChange{}}
	for i, was := range before.States {
		if i < len(after.States) {
			d.Endpoints = append(d.Endpoints, endpointChanges(was, after.States[i])...)
		}
	}
	p := planner{before: before, after: after, was: NewJudge(before), is: NewJudge(after), endpoints: endpoints, host: host, work: work}
	p.compare()
	d.Connections, d.Truncated = append(d.Connections, p.merged()...), p.spent > p.work
	d.Published = publishedChanges(before, after, endpoints, host)
	return d
}

// maxWork bounds a comparison by the rules that packets meet. It is some seconds of work. Pairs
// that no difference is about cost next to nothing.
const maxWork = 400_000_000

func endpointChanges(was, is *State) []EndpointChange {
	var all []EndpointChange
	for _, d := range Directions {
		before, after := closers(was, d), closers(is, d)
		if slices.Equal(before, after) {
			continue
		}
		c := EndpointChange{Container: is.Container, Network: is.Network, Direction: d.String(), Before: before, After: after}
		who := fmt.Sprintf("the %s of %s on %s", d, is.Container, is.Network)
		switch {
		case len(before) == 0:
			c.Sentence = fmt.Sprintf("%s is closed by %s", who, policiesText(after))
		case len(after) == 0:
			c.Sentence = fmt.Sprintf("%s is open: it was closed by %s", who, policiesText(before))
		default:
			c.Sentence = fmt.Sprintf("%s is closed by %s: it was by %s", who, policiesText(after), policiesText(before))
		}
		all = append(all, c)
	}
	return all
}

func closers(s *State, d Direction) []string {
	all := append([]string{}, s.Policies[d]...)
	for _, why := range s.Locked {
		all = append(all, faultOf+why)
	}
	return all
}

type planner struct {
	before, after *RuleSet
	was, is       *Judge
	endpoints     []*Endpoint
	host          []netip.Addr
	work, spent   int
	found         []found
}

// found is a change between two classes in one family.
type found struct {
	ConnectionChange
	ipv6 bool
}

// merged joins changes that read alike: first both families, then networks, then the targets of
// one source, then the sources of the same targets.
func (p *planner) merged() []ConnectionChange {
	var all []ConnectionChange
	for _, f := range p.found {
		c := f.ConnectionChange
		c.Family = familyName(f.ipv6)
		i := slices.IndexFunc(all, func(o ConnectionChange) bool {
			same := o.Family == familyName(!f.ipv6)
			o.Family = c.Family
			return same && o.key() == c.key() && o.ends() == c.ends()
		})
		if i >= 0 {
			all[i].Family = ""
			continue
		}
		all = append(all, c)
	}
	for _, list := range []func(*ConnectionChange) *[]string{
		func(c *ConnectionChange) *[]string { return &c.Networks },
		func(c *ConnectionChange) *[]string { return &c.To },
		func(c *ConnectionChange) *[]string { return &c.From },
	} {
		all = joined(all, list)
	}
	for i := range all {
		all[i].Sentence = all[i].sentence()
	}
	return all
}

// key has to be the same in changes that are told as one. ends may differ in one of its parts.
func (c ConnectionChange) key() string {
	return fmt.Sprint(c.Family, "\x00", c.Service, "\x00", c.Allowed, "\x00", c.open, "\x00", c.Policies)
}

func (c ConnectionChange) ends() string {
	return fmt.Sprintf("%q %q %q", c.From, c.To, c.Networks)
}

// joined joins one of the lists of changes that are the same in all else.
func joined(all []ConnectionChange, list func(*ConnectionChange) *[]string) []ConnectionChange {
	var out []ConnectionChange
	at := map[string]int{}
	for _, c := range all {
		grow := *list(&c)
		*list(&c) = nil
		key := c.key() + c.ends()
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, c)
		}
		into := list(&out[i])
		for _, name := range grow {
			if !slices.Contains(*into, name) {
				*into = append(*into, name)
			}
		}
	}
	return out
}

func familyName(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}

func (c ConnectionChange) sentence() string {
	verb, why := "may now reach", "allowed by "+policiesText(c.Policies)
	switch {
	case !c.Allowed:
		verb, why = "may no longer reach", "denied by "+policiesText(c.Policies)
	case c.open:
		why = "it was denied by " + policiesText(c.Policies)
	}
	family := ""
	if c.Family != "" {
		family = " over " + c.Family
	}
	return fmt.Sprintf("%s %s %s on %s by %s%s: %s",
		namesText(c.From), verb, namesText(c.To), namesText(c.Networks), c.Service, family, why)
}

// namesText lists names, the first of many.
func namesText(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
