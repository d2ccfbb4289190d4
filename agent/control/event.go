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
	EventLost      = "lost"      // Count events were lost: more came than were read
)

// Event is something that was refused, as `netguard monitor -o json` prints it, one
// document a line: fields are added, never renamed or taken away.
type Event struct {
	Time time.Time `json:"time"`
	Type string    `json:"type"`
	// Count is how many frames or packets the event is about. The counts of violations add up
	// to what status counts. Of denied packets only those that were seen are counted here:
	// status has the exact number.
	Count uint64 `json:"count"`
	// Mode is monitor if the agent let the frames pass, and empty if it refused them.
	Mode string `json:"mode,omitempty"`
	// Container is the sender of refused frames, the one whose policies refused the packet, or
	// the one whose port is not admitted. ID, Network and Veth (on the host) belong to it.
	Container string   `json:"container,omitempty"`
	ID        string   `json:"id,omitempty"`
	SharedBy  []string `json:"shared_by,omitempty"`
	Network   string   `json:"network,omitempty"`
	Veth      string   `json:"veth,omitempty"`
	// Bridge is the bridge of withheld frames. If Container is empty there, the port is an
	// unknown port.
	Bridge string `json:"bridge,omitempty"`
	// Kind is that of a violation: mac, arp, ip, nd, dhcp, ethertype, storm,
	// connections, checksum or fragments.
	Kind string `json:"kind,omitempty"`
	// ClaimedMAC, ClaimedIP and What are what one of the frames said of its sender and of
	// itself. They are empty if no frame was seen.
	ClaimedMAC string `json:"claimed_mac,omitempty"`
	ClaimedIP  string `json:"claimed_ip,omitempty"`
	What       string `json:"what,omitempty"`
	// Direction of a denied packet is egress if the sender's policies refused it, and ingress
	// if the receiver's did. Direction of withheld frames is egress if the port sent them, and
	// ingress if they were for it. Policies are those that decided. Service is the protocol and
	// the port, such as tcp/5432.
	Direction string   `json:"direction,omitempty"`
	From      *Peer    `json:"from,omitempty"`
	To        *Peer    `json:"to,omitempty"`
	Service   string   `json:"service,omitempty"`
	Policies  []string `json:"policies,omitempty"`
	// Published are the host's ports that lead to the container's port. They are there only if
	// the host itself sent the packet: docker-proxy may have sent it for a client of such a
	// port.
	Published []string `json:"published,omitempty"`
}

// Peer is one end of a packet. Container is empty, and Entity host or external,
// where it is no container.
type Peer struct {
	Container string `json:"container,omitempty"`
	Entity    string `json:"entity,omitempty"`
	Address   string `json:"address"`
}

// About tells whether an event is about one of the named containers. It takes names as
// Status.Filter does. Without names it gives true. Lost events are about all containers.
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
