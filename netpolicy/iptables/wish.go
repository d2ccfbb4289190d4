package iptables

import (
	"net/netip"
	"time"

	"netguard/netpolicy"
)

// Options are the settings of a Driver. The zero value is fine.
type Options struct {
	// Programs are the programs to run. If nil, Open finds them.
	Programs *Programs
	// Wait is how long another program may hold the lock of iptables, in whole seconds;
	// 5 s if zero.
	Wait time.Duration
	// CutFor is how long the rules refuse the server's side of a cut connection after its
	// last packet; 10 minutes if zero. TCP gives up earlier.
	CutFor time.Duration
	// Samples hands a few of the refused packets to SampleGroup. All Drivers of a host
	// must agree. ProbeSamples tells whether the host can do it.
	Samples bool
	// Monitor counts, hands over and lets pass what policies would refuse. A Driver with
	// the other setting switches the host over at once.
	Monitor bool
}

// Wish is what shall be in the kernel. The Driver keeps it, so nobody may change it after
// it was given.
type Wish struct {
	Rules *netpolicy.RuleSet
	// Containers are the addresses of all containers of the host, managed or not. Denied
	// counts by them, and Cut looks at their connections.
	Containers []netip.Addr
	// Homes bind the addresses of managed containers to their bridges: the addresses that
	// Docker gave them, the link-local ones, and the extra ones of the same network.
	Homes []Home
	// Away are addresses that count as a container's on its bridge alone. Cut looks at their
	// connections, too.
	Away []netip.Prefix
	// Subnets are the subnets of the containers' networks. If nobody used an address in them
	// before, Cut need not look for connections of the container that gets it.
	Subnets []netip.Prefix
}

// Report is what a call of Apply did.
type Report struct {
	// Rules says that Apply wrote chains or jumps, Generation that it wrote those of a new
	// generation.
	Rules, Generation bool
	// Added and Deleted count members of sets, Created and Destroyed sets.
	Added, Deleted, Created, Destroyed int
	// Forks counts programs that ran, Messages the netlink messages that changed something.
	Forks, Messages int
	// InForce says that packets meet the wish, even if something went wrong afterwards.
	InForce bool
	// Looked says that Apply read the rules first.
	Looked bool
	// Drift is what other programs changed, if Apply had reason to look.
	Drift []string
}

// Changed tells whether Apply changed the kernel.
func (r Report) Changed() bool {
	return r.Rules || r.Added+r.Deleted+r.Created+r.Destroyed > 0
}
