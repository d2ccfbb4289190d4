package netpolicy

import "net/netip"

// Endpoint is one container on one network.
type Endpoint struct {
	Workload
	// Shared are the other containers that live in its network namespace. A
	// policy that is about one of them is about the endpoint.
	Shared  []Workload
	Network string // name
	// Addrs are all addresses that it sends from. The first of each family is the one that Docker
	// gave it. The link-local address is one of them, because it reaches every neighbour on the
	// bridge.
	Addrs []netip.Addr
	// Extra are the addresses of netguard.guard.allow. An address does not count if it is another
	// endpoint's own, or if another endpoint of the network named it first (see Contested).
	Extra []netip.Addr
	// Away are extra addresses that are not of its network. The operator permits them. They are
	// its own on its bridge alone, and only in a world of places (see World). Elsewhere they
	// belong to whoever has them there.
	Away []netip.Prefix
	// Bridge is the bridge device of its network.
	Bridge string
	// Since orders the endpoints that name the same extra address, while none of them has it. The
	// lowest was first. If two are equal, the lower ID was first.
	Since int64
	// Managed says that netguard manages the network, and that the container has not opted out.
	// Only then do selectors see the endpoint: select, and peers by name or label. The address of
	// an unmanaged endpoint only counts as not external.
	Managed bool
	// Published are the ports through which the host leads to it.
	Published []Publish
}

// Publishes tells whether the host leads to the endpoint through a port.
func (e *Endpoint) Publishes() bool { return len(e.Published) > 0 }

// bridge gives the bridge of an endpoint, "" for the host and the world, which are nil.
func (e *Endpoint) bridge() string {
	if e == nil {
		return ""
	}
	return e.Bridge
}

// Workload is a container as policies see it.
type Workload struct {
	ID, Name         string
	Project, Service string // of Docker Compose, "" without
	Labels           map[string]string
	// Inherited names the labels whose value is the same in the image. Nobody can tell whether
	// the creator of the container wanted them. They close and never open.
	Inherited map[string]bool
	// Unproven says why nobody knows which labels come from the image, "" if that is known.
	// Unless it is "", no label opens anything.
	Unproven string
	// Unread says why nobody knows its labels, "" if they are known. Unless it is "", the
	// endpoint is closed both ways: policies by label may be about it.
	Unread string
	// Build says that this is a step of an image build and no container. It has no project,
	// service or labels.
	Build bool
}

// The labels that give Project and Service.
const (
	LabelProject = "com.docker.compose.project"
	LabelService = "com.docker.compose.service"
)

// Publish is a port of an endpoint that is reachable through the host.
type Publish struct {
	HostIP   netip.Addr // unspecified: every address of its family; invalid: of both
	HostPort uint16
	Port     uint16 // the container's own
	Proto    Protocol
}

// State tells what closes an endpoint, and which of its labels and addresses do not count.
type State struct {
	Container, ID, Network string
	// Policies are the names of the policies that isolate it, by direction.
	Policies [2][]string
	// Locked says why it is closed both ways, whatever policies allow: faults of its labels,
	// labels that nobody knows, too many rules in labels, or a fault in a file with a policy
	// about it. It is empty if nothing of that closes it.
	Locked []string
	// Uncounted are labels that a policy's allow names, and that do not count there.
	Uncounted []Uncounted
	// Contested are the extra addresses that do not count.
	Contested []Contested
}

// Contested is an extra address that an endpoint names and does not get. Another endpoint of its
// network has it, and policies treat the two differently. If both had it, one would lose what
// policies allow it, or the other would gain that.
type Contested struct {
	Prefix netip.Prefix
	By     string // the container that has it
}

// Isolated tells whether policies or faults close the endpoint in a direction. What policies list
// there passes, unless the endpoint is Locked.
func (s State) Isolated(d Direction) bool { return len(s.Locked) > 0 || len(s.Policies[d]) > 0 }
