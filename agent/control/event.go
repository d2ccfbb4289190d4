package control

import (
	"slices"
	"strings"
	"time"
)

// The types of events.
const (
	EventViolation = "violation" // the guard refused frames of a container
	EventDenied    = "denied"    // policies refused packets
	EventWithheld  = "withheld"  // frames of a port, or for one, that is not admitted
	EventLost      = "lost"      // Count events were not told, as more came than were read
)

// Event is something that was refused, as `netguard monitor -o json` prints it, one
// document a line: fields are added, never renamed or taken away.
type Event struct {
	Time time.Time `json:"time"`
	Type string    `json:"type"`
	// Count is how many frames or packets it is about. Of violations the counts
	// add up to what status counts; of denied packets they are those that were
	// seen, and status has the exact number.
	Count uint64 `json:"count"`
	// Mode is monitor where it was let pass, and empty where it was refused.
	Mode string `json:"mode,omitempty"`
	// Container is whose frames were refused, or whose policies refused the
	// packet; with its id, network and host veth.
	Container string   `json:"container,omitempty"`
	ID        string   `json:"id,omitempty"`
	SharedBy  []string `json:"shared_by,omitempty"`
	Network   string   `json:"network,omitempty"`
	Veth      string   `json:"veth,omitempty"`
	// Bridge is that of withheld frames. Where Container is empty, the port is nobody's.
	Bridge string `json:"bridge,omitempty"`
	// Kind is that of a violation: mac, arp, ip, nd, dhcp, ethertype, storm,
	// connections, checksum or fragments.
	Kind string `json:"kind,omitempty"`
	// What one of the frames claimed: whose it is, and what it is. Empty if none
	// was seen.
	ClaimedMAC string `json:"claimed_mac,omitempty"`
	ClaimedIP  string `json:"claimed_ip,omitempty"`
	What       string `json:"what,omitempty"`
	// Of a denied packet: Direction is egress where the sender's policies refused
	// it, ingress where the receiver's did. Of withheld frames it is egress for those
	// that the port sent, ingress for those to it. Policies are those that decided;
	// Service is by what, such as tcp/5432.
	Direction string   `json:"direction,omitempty"`
	From      *Peer    `json:"from,omitempty"`
	To        *Peer    `json:"to,omitempty"`
	Service   string   `json:"service,omitempty"`
	Policies  []string `json:"policies,omitempty"`
	// Published are ports of the host that lead to the container's. Where the packet is the
	// host's own, docker-proxy may have sent it for whoever asked for one of them.
	Published []string `json:"published,omitempty"`
}

// Peer is one end of a packet. Container is empty, and Entity host or external,
// where it is no container.
type Peer struct {
	Container string `json:"container,omitempty"`
	Entity    string `json:"entity,omitempty"`
	Address   string `json:"address"`
}

// About tells whether an event is about one of the containers that are named, as
// Status.Filter takes names; without names it is. What was lost is about all.
func (e Event) About(names []string) bool {
	if len(names) == 0 || e.Type == EventLost {
		return true
	}
	return slices.ContainsFunc(names, func(name string) bool {
		plain := strings.TrimPrefix(name, "/")
		switch {
		case plain == "":
			return false
		case e.Container == plain, slices.Contains(e.SharedBy, plain), e.ID != "" && strings.HasPrefix(e.ID, strings.ToLower(plain)):
			return true
		}
		return e.From != nil && e.From.Container == plain || e.To != nil && e.To.Container == plain
	})
}
