package netpolicy

import "net/netip"

// RuleSet is what a packet filter shall hold, whichever filter it is: sets of addresses, and
// chains of rules with verdicts. Nothing in it accepts a packet. It drops the packet, or returns
// it to the caller.
//
// # What a driver does with it
//
// Before the rules here, a driver lets pass what belongs to an existing connection (established,
// related). Then it refuses what would open a cut connection again. In IPv6 it then returns
// neighbour discovery that was not routed (types 133 to 136, and the host's 137), and multicast
// listener messages to groups (130, 131, 132, 143). Policies never decide about these. But an
// error message of a container that policies close for sending is judged as any other message of
// ICMP, whatever connection it quotes. What is left is the first packet of a connection. It goes
// to the entry chain of its path (see Path).
//
// # Membership and rules
//
// A container that comes or goes changes the members of sets and nothing else: names of sets and
// chains stay, rules stay, Generation stays. There are three exceptions: a container whose label
// brings a policy that no other container has, the first that publishes a port (see
// World.Unpublished), and the first that a policy selects only by labels of its image (see
// Apart). A policy that comes, goes or changes gives another Generation, which is a hash of the
// rules of both families. Two rule sets with one Generation have the same chains, and sets with
// the same names and kinds. DiffMembers gives what to do for each set.
//
// The name of a chain is a hash of its rules, and so of all chains that it leads to. The name of
// a set says what the members are. So two generations share the chains and sets that are the same
// in both. For another Generation a driver fills the sets that are new or changed, writes the new
// chains next to the old ones, changes the jumps to the entry chains, and then removes what only
// the old ones used.
//
// If one Compiler makes two rule sets in succession, a set with the same members in both has one
// slice for them. A driver that finds the same slice has nothing to do.
//
// The order of changes to members matters: nothing that is closed before and after may be open in
// between. Changes gives them in a safe order.
type RuleSet struct {
	// Generation is a hash of the rules, not of the members. It has
	// generationLen letters and digits.
	Generation string
	V4, V6     Family
	// States has the State of each endpoint, in the order of the input.
	States []*State
	// Apart are the selectors of policies, as texts, that fit an endpoint only by labels of its
	// image, and those of World.Apart. Such a policy allows something to endpoints that do not
	// count as peers by the same selector (see inherited.go). So it needs sets of its own. Give
	// Apart to the next World.
	Apart map[string]bool

	policies []Policy // for explanations
	guarded  bool     // policies deny something
	index    [2]*familyIndex
}

// Families lists both, to range over.
func (r *RuleSet) Families() [2]*Family { return [2]*Family{&r.V4, &r.V6} }

// Family is the part of a rule set for one version of IP.
type Family struct {
	IPv6 bool
	// Entry names the chain that a packet of each path starts at.
	Entry [3]string
	// Sets are sorted by name. A set without members is there all the same.
	Sets []Set
	// Chains are in the order in which they can be written: a chain that others
	// go to stands before them.
	Chains []Chain
}

// Path is a hook of the host at which the first packet of a connection is
// judged.
type Path uint8

const (
	// Forward is container to container and container to the world and back,
	// routed, or bridged where the bridge hands its frames over.
	Forward Path = iota
	// Input is whatever reaches the host, except by the loopback device: the
	// host's own connections to itself are no part of it. A driver calls the
	// entry chain with "not in by lo".
	Input
	// Output is the host to a container, docker-proxy included.
	Output
)

func (p Path) String() string {
	return [...]string{"forward", "input", "output"}[p]
}

// Kind is what the members of a set are.
type Kind uint8

const (
	// Addrs holds single addresses (ipset: hash:ip). A member's prefix is a /32
	// or a /128.
	Addrs Kind = iota
	// Nets holds prefixes that do not overlap, none of them a /0: exceptions
	// are cut out already, so that there is no need of "nomatch" (ipset:
	// hash:net). Its members never change: the name is a hash of them.
	Nets
	// Published holds ports of the host: a prefix of the host's addresses, a
	// protocol and a port (ipset: hash:net,port). None is a /0: all addresses
	// are two /1. It is matched with address and port of the destination
	// (ipset: dst,dst), for any protocol that has ports.
	Published
	// Places holds prefixes with the bridge on which they count (ipset:
	// hash:net,iface). It is matched with an end's address and the device that the
	// packet comes by, for the source, or leaves by (src,src or dst,dst).
	Places
)

func (k Kind) String() string {
	return [...]string{"addrs", "nets", "published", "places"}[k]
}

// Set is a named set of members of one kind and one family.
type Set struct {
	Name string
	Kind Kind
	// Scoped says that the members depend on whom a stage closes, which all policies
	// decide together. The name carries a hash of that. Another generation that has a
	// set of the same name has the same members in it, with two exceptions. Whether a
	// policy allows something to a container that it selects by labels of its image
	// depends on who else selects it. Who has an extra address that several containers
	// have depends on whether policies treat them alike.
	Scoped bool
	// Closes says that a member more denies more. In any other set, a member more allows more.
	Closes bool
	// About says for people what the set is: "containers with service=api". It may have text of
	// users in it, which is bounded. No name is made of it.
	About string
	// Members are sorted, without duplicates.
	Members []Member

	of      []cidr // that a set of Nets was made of, as operators wrote them
	singles bool   // of Places: each member is a single address
}

// Member is a member of a set. Proto and Port are zero unless the set's kind is
// Published, and Bridge is empty unless it is Places.
type Member struct {
	Prefix netip.Prefix
	Proto  Protocol
	Port   uint16
	Bridge string
}

// Chain is a list of rules. The first that matches decides. Each chain ends with a rule that
// matches everything, so no packet reaches its end.
type Chain struct {
	Name  string
	Rules []Rule
}

// Rule is a verdict for the packets that all of its matches fit.
type Rule struct {
	// Sets has, for each side, at most one set that must match, and at most two that must not.
	Sets []SetMatch
	// Proto is zero for every protocol. It is never ICMP in IPv6 or ICMPv6 in
	// IPv4.
	Proto Protocol
	// Ports are destination ports; none is every port. They are sorted, do not
	// touch, and fit one multiport match of iptables: at most 15 numbers, of
	// which a range takes two.
	Ports []PortRange
	// ICMPType is the type for Proto ICMP or ICMPv6, or AnyICMPType.
	ICMPType int16

	Verdict Verdict
	// Goto names the chain to go on in, for the verdict Goto.
	Goto string

	Origin Origin
}

// SetMatch asks whether the source or the destination of a packet is in a set,
// or is not.
type SetMatch struct {
	Set  string
	Side Side
	Not  bool
}

// Side is an end of a packet.
type Side uint8

const (
	Src Side = iota
	Dst
)

func (s Side) String() string {
	if s == Dst {
		return "dst"
	}
	return "src"
}

// Protocol is an IP protocol by its number; zero is every protocol.
type Protocol uint8

const (
	AnyProtocol Protocol = 0
	ICMP        Protocol = 1
	TCP         Protocol = 6
	UDP         Protocol = 17
	ICMPv6      Protocol = 58
	SCTP        Protocol = 132
)

// AnyICMPType is every type of ICMP.
const AnyICMPType int16 = -1

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Verdict is what becomes of a packet.
type Verdict uint8

const (
	// Drop refuses the packet.
	Drop Verdict = iota
	// Return gives the packet back to whoever called the entry chain: policy
	// has nothing against it.
	Return
	// Goto goes on in another chain for good (iptables: -g), so that Return
	// there means the same as here.
	Goto
)

func (v Verdict) String() string {
	return [...]string{"drop", "return", "goto"}[v]
}

// Origin tells where a rule comes from. Counters and explanations go by it.
type Origin struct {
	Stage Stage
	// Policy is the policy's name, or "" for a rule that no policy wrote: the
	// way from one stage to the next, or the Drop at the end of a stage, for
	// what no policy there allows.
	Policy string
	// Direction is the direction of the policy's rule, Index its place in the
	// list (netguard's "ingress[2]"), counted from zero.
	Direction Direction
	Index     int
}

// Stage is a part of the way through a path. A connection passes the stages in this order. A path
// leaves out the stages of a direction that it lacks.
type Stage uint8

const (
	Guardrail    Stage = iota // deny of any policy
	FileEgress                // egress of the sender, by the operator's files
	LabelEgress               // egress of the sender, by its own label
	FileIngress               // ingress of the receiver, by the operator's files
	LabelIngress              // ingress of the receiver, by its own label
)

func (s Stage) String() string {
	return [...]string{"deny", "egress", "label egress", "ingress", "label ingress"}[s]
}

// Direction is a direction of traffic as the container sees it.
type Direction uint8

const (
	Ingress Direction = iota // what reaches the container
	Egress                   // what the container sends
)

// Directions lists both, in the order in which they are shown.
var Directions = [2]Direction{Ingress, Egress}

func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}
