// Package desired works out what every endpoint should have: its limits, its addresses, and
// what policies say of it. It also works out which ports netguard may close.
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
	// Before are the networks from before the boot. They count until Docker answers.
	Before docker.View
	Now    time.Time
}

// Same tells whether both inputs lead to the same state, except for what time decides.
func (i *Inputs) Same(o *Inputs) bool {
	return i.Config == o.Config && i.Catalog == o.Catalog && i.Seen.Same(&o.Seen)
}

// State is what everything should be.
type State struct {
	Inputs
	// Endpoints are what each endpoint should have, in the order of Seen.Joined.
	Endpoints []*Endpoint
	// Changed says that an endpoint differs from the state before.
	Changed bool
	Site    Site
	// Left says, by bridge name, why netguard leaves a bridge alone.
	Left map[string]string
	// Ruling is what policies mean for the endpoints. If it did not change, it is the same
	// pointer as in the state before.
	Ruling *Ruling
	// Closed are the ports, by ifindex, that policies isolate for ingress.
	Closed map[int]bool
}

// Builder makes states. It keeps its last results, so that the cost of a change does not grow
// with the host. It is pure except for the questions that it asks. One goroutine owns it.
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

// NewBuilder gives a builder without earlier results.
func NewBuilder() *Builder { return &Builder{} }

// Look finds what labels say, and which bridges netguard manages. After an error it is unknown
// which bridges an earlier agent managed. Then the state manages all bridges.
func (b *Builder) Look(in Inputs) (s *State, err error) {
	s = &State{Inputs: in}
	s.Site = Site{View: in.Seen.Links, Op: in.Config, watches: b.Monitor}
	s.Site.Own = HostPorts(in.Seen.Links, in.Config.Uplinks)
	op := endpoint.Operator{Exclude: in.Config.Exclude, AllowOptOut: in.Config.AllowOptOut}
	networks := in.Seen.View
	if !in.Seen.Complete {
		networks = in.Before
	}
	if !in.Config.AdmissionOpen { // with open admission nothing is cut off
		s.Left, err = b.taking.left(networks, op, s.Site, in.Seen.Sandboxes, b.Earlier)
		op.Left = s.Left
	}
	s.Endpoints = b.drafts.desired(in.Seen.Joined, op, in.Config, b.Leaf)
	s.Site.Managed = managedBridges(networks, in.Seen.Links.Bridges, op)
	return s, err
}

// Again is a short cut after Look has made s. If Decide would decide the same as for the last
// state, it gives that state with the inputs of s. If Decide may differ, it gives nil.
func (b *Builder) Again(last, s *State) *State {
	routed := len(b.decided.copies) > 0 // routes decided about them, and may have changed meanwhile
	lacks := len(s.Seen.Unlisted)+len(last.Seen.Unlisted) > 0
	if b.failed || routed || lacks || !s.Seen.Complete || last.Config != s.Config || last.Catalog != s.Catalog ||
		!last.Seen.SameEndpoints(&s.Seen) || swarmPort(last.Seen.View, last.Config) != swarmPort(s.Seen.View, s.Config) || !maps.Equal(last.Left, s.Left) {
		return nil
	}
	again := *last
	again.Inputs, again.Changed = s.Inputs, false
	return &again
}

// Decide adds to a state which extra addresses count, and what policies mean for its endpoints.
// After an error, link-local addresses do not count.
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
