// Package desired works out what every endpoint should have: its limits, its addresses, what
// policies say of it, and which ports are netguard's to close.
//
// It is pure: it takes what was observed, the configuration and the policies as values, and
// gives one value, the State. It reads no clock and no kernel. It asks two questions, about
// routes and about an earlier agent, through functions that it is given: which addresses it
// asks about depends on what it has decided until then. It keeps its last results, so that
// the cost of a change does not grow with the host.
package desired

import (
	"maps"
	"net/netip"
	"time"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

// Inputs are what the wanted state is made of. Nobody changes what they point to.
type Inputs struct {
	Seen    observe.Snapshot
	Config  *config.Config
	Catalog *netpolicy.Catalog
	// Before are the networks of before the boot, which count until Docker has answered.
	Before docker.View
	Now    time.Time
}

// Same tells whether the same state would be made of them, but for what time decides.
func (i *Inputs) Same(o *Inputs) bool {
	return i.Config == o.Config && i.Catalog == o.Catalog && i.Seen.Same(&o.Seen)
}

// State is what everything should be.
type State struct {
	Inputs
	// Endpoints are what each endpoint should have, in the order of Seen.Joined.
	Endpoints []*Endpoint
	// Changed says that an endpoint is another one than in the state before.
	Changed bool
	Site    Site
	// Left says why bridges are left alone, by name.
	Left map[string]string
	// Ruling is what policies come to. It is the same pointer as in the state before where
	// it is the same.
	Ruling *Ruling
	// Closed are the ports, by ifindex, that policies close for what reaches them.
	Closed map[int]bool
}

// Builder makes states. It keeps what it made, so that a change costs what it is about and
// not what there is. It is pure but for the questions that it asks, and belongs to one
// goroutine.
type Builder struct {
	Leaf    shaper.Leaf
	Monitor bool // what is refused is to be let pass
	// Route tells how the host reaches an address.
	Route func(netip.Addr) (link.Route, error)
	// Earlier tells what an earlier agent left in the kernel.
	Earlier func() (guard.Earlier, error)

	drafts   drafts
	taking   taking
	locals   linkLocals
	decided  settled
	compiler compiler
	closed   closed
	failed   bool // the last Decide
}

// NewBuilder gives a builder that has made nothing.
func NewBuilder() *Builder { return &Builder{} }

// Look finds what labels say, and which bridges are netguard's. After an error it is not known
// which bridges an earlier agent took, and all are taken.
func (b *Builder) Look(in Inputs) (s *State, err error) {
	s = &State{Inputs: in}
	s.Site = Site{View: in.Seen.Links, Op: in.Config, watches: b.Monitor}
	s.Site.Own = HostPorts(in.Seen.Links, in.Config.Uplinks)
	op := endpoint.Operator{Exclude: in.Config.Exclude, AllowOptOut: in.Config.AllowOptOut}
	networks := in.Seen.View
	if !in.Seen.Complete {
		networks = in.Before
	}
	if !in.Config.AdmissionOpen { // otherwise nobody is cut off
		s.Left, err = b.taking.left(networks, op, s.Site, in.Seen.Sandboxes, b.Earlier)
		op.Left = s.Left
	}
	s.Endpoints = b.drafts.desired(in.Seen.Joined, op, in.Config, b.Leaf)
	s.Site.Managed = managedBridges(networks, in.Seen.Links.Bridges, op)
	return s, err
}

// Again gives the last state with the inputs of another that Look made, where Decide would come
// to the same; nil where it may not.
func (b *Builder) Again(last, s *State) *State {
	routed := len(b.decided.copies) > 0 // by what may have changed meanwhile
	lacks := len(s.Seen.Unlisted)+len(last.Seen.Unlisted) > 0
	if b.failed || routed || lacks || !s.Seen.Complete || last.Config != s.Config || last.Catalog != s.Catalog ||
		!last.Seen.SameEndpoints(&s.Seen) || swarmPort(last.Seen.View, last.Config) != swarmPort(s.Seen.View, s.Config) || !maps.Equal(last.Left, s.Left) {
		return nil
	}
	again := *last
	again.Inputs, again.Changed = s.Inputs, false
	return &again
}

// Decide adds to a state which extra addresses count, and what policies come to. After an
// error link-local addresses do not count.
func (b *Builder) Decide(s *State) error {
	s.Endpoints = copies(s.Endpoints)
	x := extraAddresses{s.Config.Claims, b.Route, s.Seen.Links.Bridges, s.Site.Own}
	x.decide(s.Endpoints)
	err := b.locals.decide(s.Endpoints, x, b.Earlier)
	b.failed = err != nil
	s.Changed = b.decided.settle(s.Endpoints)
	byBridge := len(s.Config.Claims) > 0 || b.locals.ever
	s.Ruling = b.compiler.compile(s.Catalog, s.Endpoints, byBridge, swarmPort(s.Seen.View, s.Config))
	s.Closed = b.closed.of(s.Ruling, s.Endpoints)
	return err
}
