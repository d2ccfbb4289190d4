package doctor

import (
	"netguard/agent/control"
	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

// Facts are what was found. An Err is why something could not be told, "" if it
// could.
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
	// Connections are how many the table of connections holds, and may hold; both
	// 0 where there is no table.
	Connections, MaxConnections int
}

// Shaper is what the kernel has for bandwidth limits.
type Shaper struct {
	// Untried says why nothing was tried.
	Untried string
	Leaf    string
	Missing []string
	// Err is why limits cannot be made. Only then the next three are known.
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
	// OpenErr is why iptables cannot be used, RulesErr why rules of all kinds
	// that policies are made of cannot be written, CutErr why connections cannot
	// be listed.
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
	// Programs are the iptables that are installed: first what "iptables" is.
	Programs []iptables.Listing
	Chains   []iptables.NativeChain
	Err      string // why Chains is not known
	// Untracked are the chains of nftables with rules that take packets out of the table
	// of connections, those of iptables' nft backend aside.
	Untracked []string
}

// Links are the devices of this network namespace.
type Links struct {
	Err     string
	Links   []link.Device
	Foreign []Foreign // on ports of managed bridges
	// Own are ports of managed bridges that are the host's own, and that the
	// operator did not name, by bridge.
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
