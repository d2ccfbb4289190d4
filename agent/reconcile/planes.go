package reconcile

import (
	"context"
	"net/netip"

	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// A plane is a part of the kernel that one driver owns. It gets all that is wanted, and writes
// what differs.

// ShapePlane limits ports.
type ShapePlane interface {
	// Apply carries out steps for the port behind a veth, up to the first that fails.
	Apply(veth int, name string, steps []shaper.Step) error
	// Read reads what the kernel holds for ports.
	Read(veths []int) (map[int]tc.Port, error)
	// Drop deletes the IFBs of veths that are gone.
	Drop(veths []int) error
	// Sweep deletes the IFBs of all veths but those that keep names, and counts them.
	Sweep(keep func(veth int) bool) (int, error)
}

// GuardPlane guards ports of bridges, and admits them.
type GuardPlane interface {
	// Apply reads what Look names, brings the kernel to the wish, and reports what it holds.
	Apply(guard.Wish, guard.Look) (guard.Report, error)
	// Earlier says what an earlier agent left.
	Earlier() (guard.Earlier, error)
	Features() guard.Features
}

// PolicyPlane holds the rules of policies.
type PolicyPlane interface {
	Apply(context.Context, iptables.Wish) (iptables.Report, error)
	// Verify reads the kernel and tells what is not as it was last applied.
	Verify(context.Context) (iptables.Drift, error)
	// Glance tells by what is cheap to see whether somebody changed something.
	Glance() (bool, error)
	// Bridges makes the named bridges hand their frames to the rules. off are those that
	// another program had switched off.
	Bridges(map[string]bool) (off []string, err error)
}

// Connections ends connections that the kernel knows.
type Connections interface {
	// Begin starts a list of connections in another goroutine: those of old addresses, and
	// those that the last changes concern, or all. It calls wake when Next has work to do.
	Begin(ctx context.Context, old map[netip.Addr]bool, all bool, wake func()) error
	// Next ends the listed connections that are of old addresses, or that keep refuses. It
	// never waits. over says that the list is over.
	Next(keep func(iptables.Flow) bool) (r iptables.CutReport, over bool, err error)
	// Vacant tells, without a list, which addresses of containers cannot have connections.
	Vacant() (func(netip.Addr) bool, error)
}

// Links tells of the host's links.
type Links interface {
	// RouteTo tells how the host reaches an address.
	RouteTo(netip.Addr) (link.Route, error)
	// Addresses gives the host's own.
	Addresses() (map[netip.Addr]bool, error)
	// Resolve reads one port; the error is link.ErrNotFound where the link is gone.
	Resolve(index int) (link.Port, error)
}

// Observer tells what is known of Docker and of the kernel's links.
type Observer interface {
	// Take takes what changed at links since the last call, and gives what is known.
	Take() (link.Hint, observe.Snapshot)
}

// Notices tells what the kernel reported about tables of nftables.
type Notices interface {
	// Rules tells whether iptables' table was changed since the last call, and by which
	// programs.
	Rules() (bool, []string)
	// Guard tells whether the guard's table was changed since the last call.
	Guard() bool
}
