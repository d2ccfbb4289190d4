package doctor

import (
	"netguard/agent/control"
	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

// Facts are what Gather found. A field Err says why something is not known; "" if it is known.
type Facts struct {
	Version  string // of this netguard
	Host     Host
	Shaper   Shaper
	Guard    Guard
	Policy   Policy
	Docker   Docker
	Firewall Firewall
	Links    Links
	Agent    Agent
	Config   Files
	Policies Files
}

// Host is the caller and the kernel.
type Host struct {
	Err    string
	Caps   uint64 // effective capabilities of the caller
	Kernel string // release
	// BridgeFilter are the host's switches net.bridge.bridge-nf-call-iptables and
	// -ip6tables; none where br_netfilter is not loaded.
	BridgeFilter []string
	// Connections is how many connections the kernel tracks, MaxConnections how many it can
	// track. Both are 0 if there is no table of connections.
	Connections, MaxConnections int
}

// Shaper is what the kernel has for bandwidth limits.
type Shaper struct {
	// Untried says why nothing was tried.
	Untried string
	Leaf    string
	Missing []string
	// Err is why limits cannot be made. The next three fields are known only if Err is set.
	Err               string
	HTB, IFB, Ingress bool
}

// Guard is what the kernel has for the guard.
type Guard struct {
	Untried  string
	Err      string
	Features guard.Features
}

// Policy is what was tried of policies.
type Policy struct {
	Untried string
	// OpenErr is why iptables cannot be used. RulesErr is why the kinds of rules that policies
	// need cannot be written. CutErr is why connections cannot be listed.
	OpenErr, RulesErr, CutErr string
	// Sets are the types of sets that the kernel lacks.
	Sets []string
}

// Docker is the engine.
type Docker struct {
	Host              string
	Err               string
	Version, Firewall string
	Networks          []Network // of the driver bridge, sorted by name
	view              docker.View
	// InfoErr is why the mode is not known.
	InfoErr string
	docker.Mode
}

// Network is a network of the driver bridge.
type Network struct {
	Name, Bridge string
	Managed      bool // the configuration does not exclude it
	IPv6         bool
	Endpoints    int // how many containers are on it
}

// Firewall is what iptables and nftables hold.
type Firewall struct {
	// Programs are the installed iptables. The first is the one that the command iptables runs.
	Programs []iptables.Listing
	Chains   []iptables.NativeChain
	Err      string // why Chains is not known
	// Untracked are the nftables chains with rules that take packets out of the table of
	// connections. The chains of iptables' nft backend are not among them.
	Untracked []string
}

// Links are the devices of this network namespace.
type Links struct {
	Err     string
	Links   []link.Device
	Foreign []Foreign // on ports of managed bridges
	// Own are the host's own ports on managed bridges, by bridge. Those that the operator named
	// (networks.uplinks) are not among them.
	Own map[string][]string
	// ForeignErr is why Foreign is not known.
	ForeignErr string
}

// Foreign is a qdisc that is not netguard's.
type Foreign struct {
	Veth, Bridge string
	Kind         string // htb, clsact…
	Ingress      bool   // it stands where what the container receives is limited
}

// Agent is the agent at the socket.
type Agent struct {
	Socket string
	Err    string // why it does not answer
	Absent bool   // nobody listens there
	// Holder is the process that holds the lock of the socket, 0 if nobody does.
	Holder  int
	Version string
	Status  control.Status
	// Other is another socket where an agent answers.
	Other string
}

// Files are the configuration, or the policies.
type Files struct {
	Path   string
	Absent bool     // it is not there, and need not be
	Count  string   // what is in it
	Faults []string // each with its place
}
