package netpolicy

import "net/netip"

// Endpoint is one container on one network.
type Endpoint struct {
	Workload
	// Shared are the other containers that live in its network namespace. A
	// policy that is about one of them is about the endpoint.
	Shared  []Workload
	Network string // name
	// Addrs are all addresses that it sends from, the first of each family
	// being the one that Docker gave it. The link-local one is one of them: it
	// reaches every neighbour on the bridge.
	Addrs []netip.Addr
	// Extra are the addresses of netguard.guard.allow. One that is another
	// endpoint's own is not believed, nor one that another endpoint of the network
	// named first (see Contested).
	Extra []netip.Addr
	// Away are extra addresses that are not of its network, by the operator's word.
	// They are its own on its bridge alone, and only in a world of places (see
	// World): anywhere else they are whose they are.
	Away []netip.Prefix
	// Bridge is the device that its network's packets come and go by.
	Bridge string
	// Since orders the endpoints that name one extra address that none of them has yet: the
	// lowest was first.
	// Of two that are equal the lower ID was.
	Since int64
	// Managed says that the network is one that netguard manages and that the
	// container has not opted out: only then does a policy's select, or a peer by
	// name or label, see it. An address of any other counts for "not external".
	Managed bool
	// Published are the ports through which the host leads to it.
	Published []Publish
}

// Publishes tells whether the host leads to the endpoint through a port.
func (e *Endpoint) Publishes() bool { return len(e.Published) > 0 }

// bridge is the one that an endpoint is on, "" of the host and of the world.
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
	// Inherited names the labels whose value is the image's own: nobody can tell
	// whether the container's creator wanted them. They close and never open.
	Inherited map[string]bool
	// Unproven says why it is not known which labels are the image's, "" if it is
	// known. None of the labels opens then.
	Unproven string
	// Build says that it is a step of an image build: no container, without project,
	// service and labels.
	Build bool
}

// The labels that Project and Service are of.
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

// State is what holds an endpoint.
type State struct {
	Container, ID, Network string
	// Policies name those that isolate it, by direction.
	Policies [2][]string
	// Locked says why it is closed both ways whatever policies allow: faults of
	// its labels, or of a policy that is about it. Empty if it is not.
	Locked []string
	// Uncounted are labels that a policy's allow names, and that do not count there.
	Uncounted []Uncounted
	// Contested are the extra addresses that do not count.
	Contested []Contested
}

// Contested is an extra address that an endpoint names and does not get: another one
// of its network named it first, and policies treat the two differently. If both had
// it, the one would lose by it what policies allow it, or the other would get that.
type Contested struct {
	Prefix netip.Prefix
	By     string // the container that has it
}

// Isolated tells whether policy closes the endpoint in a direction but for what
// it lists.
func (s State) Isolated(d Direction) bool { return len(s.Locked) > 0 || len(s.Policies[d]) > 0 }
