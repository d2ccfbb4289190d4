// Package control is the agent's API on a unix socket, HTTP and JSON, and the
// client that the command line uses. The types here are the contract of
// `netguard status -o json`: fields are added, never renamed or taken away.
package control

import "time"

// The modes of an agent.
const (
	ModeEnforce = "enforce"
	ModeMonitor = "monitor" // what would be refused is counted and passes
)

// Status is what the agent enforces, verified against the kernel when it was
// asked for.
type Status struct {
	Mode string `json:"mode" yaml:"mode"` // ModeEnforce or ModeMonitor
	// Admission is closed or open: what becomes of a container until all its
	// rules are in the kernel, and while no agent runs. "" is not known yet.
	Admission string `json:"admission" yaml:"admission"`
	Docker    Docker `json:"docker" yaml:"docker"`
	// Starting says that the agent has just begun and has not read Docker's
	// containers yet. Then nothing below says that something is wrong.
	Starting bool `json:"starting,omitempty" yaml:"starting,omitempty"`
	// InSync says that the kernel holds what the agent wants, for every endpoint.
	InSync     bool      `json:"in_sync" yaml:"in_sync"`
	VerifiedAt time.Time `json:"verified_at" yaml:"verified_at"`
	// Findings are faults of the host or of the configuration, each with its
	// remedy. Those of one endpoint are in its own list.
	Findings  []string   `json:"findings" yaml:"findings"`
	Shaper    Shaper     `json:"shaper" yaml:"shaper"`
	Guard     Guard      `json:"guard" yaml:"guard"`
	Endpoints []Endpoint `json:"endpoints" yaml:"endpoints"`
	// UnknownPorts are ports of managed bridges that have been nobody's for longer than a
	// container takes to start.
	UnknownPorts []UnknownPort `json:"unknown_ports,omitempty" yaml:"unknown_ports,omitempty"`
}

// UnknownPort is a port of a bridge that is nobody's.
type UnknownPort struct {
	Port     string   `json:"port" yaml:"port"`
	Bridge   string   `json:"bridge" yaml:"bridge"`
	Withheld Withheld `json:"withheld" yaml:"withheld"`
}

// Withheld counts the frames that a port sent, and those that were for it, while it was
// not admitted. They were refused, in monitor mode let pass.
type Withheld struct {
	Sent     uint64 `json:"sent" yaml:"sent"`
	Received uint64 `json:"received" yaml:"received"`
}

// Total is the sum.
func (w Withheld) Total() uint64 { return w.Sent + w.Received }

// Docker is the engine that is observed.
type Docker struct {
	Version  string `json:"version" yaml:"version"`   // "" until it was reached
	Firewall string `json:"firewall" yaml:"firewall"` // iptables or nftables
	// Connected says that the engine's events are being followed.
	Connected bool `json:"connected" yaml:"connected"`
	// ReadAt is when Docker was last asked for containers and networks and
	// answered. That is whenever something happens, and every half minute. If an answer takes
	// long, it is every five minutes at least.
	ReadAt time.Time `json:"read_at" yaml:"read_at"`
}

// Shaper is what the kernel offers for bandwidth limits.
type Shaper struct {
	Leaf    string   `json:"leaf" yaml:"leaf"`                           // fq_codel, sfq or hashed
	Missing []string `json:"missing,omitempty" yaml:"missing,omitempty"` // better ones that the kernel lacks
}

// Guard is what the kernel offers for guarding bridge ports.
type Guard struct {
	// Tier names how much of the guard there is: "full" is all.
	Tier string `json:"tier" yaml:"tier"`
	// Missing says what the kernel lacks, and what that means; empty is all.
	Missing []string `json:"missing,omitempty" yaml:"missing,omitempty"`
	// Checksum says what keeps a packet as it was judged: ByProgram, ByFragments or ByNothing.
	Checksum string `json:"checksum" yaml:"checksum"`
	// ChecksumMissing says why there is no program.
	ChecksumMissing string `json:"checksum_missing,omitempty" yaml:"checksum_missing,omitempty"`
}

// What keeps the kernel from writing into a packet after it was judged.
const (
	ByProgram   = "program"   // a BPF program at each port refuses such packets
	ByFragments = "fragments" // fragments are refused; what comes in one piece is not told
	ByNothing   = "none"
)

// The states of an endpoint.
const (
	// Admitted: everything that was wanted for it was written to the kernel. Missing says what
	// is not there now, because it was removed or is wanted only since.
	Admitted    = "admitted"
	Quarantined = "quarantined" // it can neither send nor receive; Reason says why
	Unmanaged   = "unmanaged"   // netguard does nothing about it; Reason says why
)

// The kinds of endpoints.
const (
	KindContainer    = "container"
	KindBuild        = "build"         // a RUN step of a build; Container is the engine's name for it
	KindSwarmIngress = "swarm-ingress" // where Swarm's routing mesh takes in what is for services
	KindUnknown      = "unknown"       // the engine lists it, and it is none of these
)

// Endpoint is one container on one network, or something else that Docker lists there.
type Endpoint struct {
	Container string `json:"container" yaml:"container"` // name
	Kind      string `json:"kind" yaml:"kind"`           // KindContainer and so on
	ID        string `json:"id" yaml:"id"`
	// SharedBy names the other containers that live in the same network
	// namespace: their labels count here too, the lower limit wins.
	SharedBy []string `json:"shared_by,omitempty" yaml:"shared_by,omitempty"`
	Network  string   `json:"network" yaml:"network"`
	Bridge   string   `json:"bridge" yaml:"bridge"`
	Veth     string   `json:"veth" yaml:"veth"`
	MAC      string   `json:"mac" yaml:"mac"`
	IPv4     string   `json:"ipv4" yaml:"ipv4"`
	IPv6     string   `json:"ipv6" yaml:"ipv6"`
	State    string   `json:"state" yaml:"state"`
	Reason   string   `json:"reason" yaml:"reason"`
	// Missing says what the kernel lacks of what is wanted for it, with the remedy. Then the
	// status is not in sync. "" if the kernel lacks nothing.
	Missing    string     `json:"missing,omitempty" yaml:"missing,omitempty"`
	Findings   []string   `json:"findings,omitempty" yaml:"findings,omitempty"`
	Policy     Policies   `json:"policy" yaml:"policy"`
	Ingress    Traffic    `json:"ingress" yaml:"ingress"`
	Egress     Traffic    `json:"egress" yaml:"egress"`
	Denied     uint64     `json:"denied" yaml:"denied"`
	Violations Violations `json:"violations" yaml:"violations"`
	// Withheld counts from the moment the port appears. No container is admitted yet then, so a
	// few frames of its start are usual.
	Withheld Withheld `json:"withheld" yaml:"withheld"`
}

// Wrong tells whether the endpoint is not as it was declared.
func (e Endpoint) Wrong() bool {
	return e.State == Quarantined || e.Missing != "" || len(e.Findings) > 0
}

// Policies names the policies that isolate an endpoint, by direction.
type Policies struct {
	Ingress []string `json:"ingress" yaml:"ingress"`
	Egress  []string `json:"egress" yaml:"egress"`
	// Faults say why it is closed both ways whatever policies allow.
	Faults []string `json:"faults,omitempty" yaml:"faults,omitempty"`
}

// Traffic is one direction of an endpoint, as the container sees it.
type Traffic struct {
	RateBPS    uint64 `json:"rate_bps" yaml:"rate_bps"`       // bits a second; 0: unlimited
	BurstBytes uint64 `json:"burst_bytes" yaml:"burst_bytes"` // most that passes beyond rate x time
	// Source is where the rate comes from: a label's name, default, max or
	// fallback; "" without a limit.
	Source  string `json:"source,omitempty" yaml:"source,omitempty"`
	Bytes   uint64 `json:"bytes" yaml:"bytes"`
	Packets uint64 `json:"packets" yaml:"packets"`
	Drops   uint64 `json:"drops" yaml:"drops"` // frames that did not fit the queue
}

// Violations counts the frames that the guard refused, by kind.
type Violations struct {
	MAC       uint64 `json:"mac" yaml:"mac"`
	ARP       uint64 `json:"arp" yaml:"arp"`
	IP        uint64 `json:"ip" yaml:"ip"`
	ND        uint64 `json:"nd" yaml:"nd"`
	Ethertype uint64 `json:"ethertype" yaml:"ethertype"`
	DHCP      uint64 `json:"dhcp" yaml:"dhcp"`
	Storm     uint64 `json:"storm" yaml:"storm"` // broadcast and multicast beyond the limit
	// Connections counts packets that would have opened one beyond the limit.
	Connections uint64 `json:"connections" yaml:"connections"`
	// Checksum counts frames that were refused because the kernel would have written into them,
	// or cut them into very many, after they were judged.
	Checksum uint64 `json:"checksum" yaml:"checksum"`
	// Fragments counts fragments of IP beyond the limit.
	Fragments uint64 `json:"fragments" yaml:"fragments"`
}
