package agent

import (
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
	Seen    observe.Snapshot // of Docker; taken before Links, which may only be newer
	Links   link.View
	Config  *config.Config
	Catalog *netpolicy.Catalog
	// Before are the networks of before the boot, which count until Docker has answered.
	Before docker.View
	Now    time.Time
}

// State is what everything should be.
type State struct {
	Inputs
	// View is Docker's, and what Docker does not list while the kernel has its port.
	View docker.View
	// Unlisted are the endpoints that Docker does not list, and since when.
	Unlisted map[endpoint.Key]time.Time
	// Joined are the endpoints, Desires what each should have, in the same order.
	Joined  []*endpoint.Endpoint
	Desires []*desire
	// Changed says that a desire is another one than in the state before.
	Changed bool
	Site    site
	// Left says why bridges are left alone, by name.
	Left map[string]string
	// Ruling is what policies come to. It is the same pointer as in the state before where
	// it is the same.
	Ruling *ruling
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

	bound    endpoint.Bindings
	unlisted unlisted
	drafts   drafts
	taking   taking
	locals   linkLocals
	decided  settled
	compiler compiler
}

// NewBuilder gives a builder that has made nothing.
func NewBuilder() *Builder { return &Builder{bound: endpoint.NewBindings()} }

// Look finds whose the ports are, what labels say, and which bridges are netguard's. After
// an error it is not known which bridges an earlier agent took, and all are taken.
func (b *Builder) Look(in Inputs) (s *State, err error) {
	s = &State{Inputs: in}
	s.View, s.Unlisted = b.unlisted.add(in.Seen.View, in.Links.Ports, in.Now)
	s.View = trusting(s.View, in.Config.TrustImageLabels)
	s.Site = site{View: in.Links, op: in.Config, watches: b.Monitor}
	s.Site.own = hostPorts(in.Links, in.Config.Uplinks)
	op := endpoint.Operator{Exclude: in.Config.Exclude, AllowOptOut: in.Config.AllowOptOut}
	networks := s.View
	if !in.Seen.Complete {
		networks = in.Before
	}
	if !in.Config.AdmissionOpen { // otherwise nobody is cut off
		s.Left, err = b.taking.left(networks, op, s.Site, in.Seen.Sandboxes, b.Earlier)
		op.Left = s.Left
	}
	s.Joined = endpoint.Join(endpoint.Observation{View: s.View, Ports: in.Links.Ports, Fresh: in.Seen.Fresh,
		Sandboxes: in.Seen.Sandboxes, Now: in.Now}, op, b.bound)
	b.unlisted.joined(s.Joined)
	s.Desires = b.drafts.desired(s.Joined, in.Config, b.Leaf)
	s.Site.managed = managedBridges(networks, in.Links.Bridges, op)
	return s, err
}

// Decide adds to a state which extra addresses count, and what policies come to. After an
// error link-local addresses do not count.
func (b *Builder) Decide(s *State) error {
	s.Desires = copies(s.Desires)
	x := extras{s.Config.Claims, b.Route, s.Links.Bridges, s.Site.own}
	x.decide(s.Desires)
	err := b.locals.decide(s.Desires, x, b.Earlier)
	s.Changed = b.decided.settle(s.Desires)
	byBridge := len(s.Config.Claims) > 0 || b.locals.ever
	s.Ruling = b.compiler.compile(s.Catalog, s.Desires, byBridge, swarmPort(s.View, s.Config))
	s.Closed = s.Ruling.closed(s.Desires)
	return err
}
