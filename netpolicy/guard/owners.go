package guard

import (
	"fmt"
	"net/netip"
)

// Owners of addresses that are not ports.
const (
	ownerBridge = -1 - iota
	ownerElsewhere
)

// owners gives the owner of each address and MAC: a port, or one of the above.
type owners struct {
	addrs map[Neighbour]int
	macs  map[bridgeMAC]int
	ports map[int]*portPlan
}

// at gives the scope of an address: its bridge for a link-local one, else the host.
func at(bridge int, a netip.Addr) Neighbour {
	if !a.IsLinkLocalUnicast() {
		bridge = 0
	}
	return Neighbour{bridge, a}
}

type bridgeMAC struct {
	bridge int
	mac    MAC
}

// take gives a port its own MAC and addresses, or notes why it cannot have them.
func (o owners) take(pp *portPlan) {
	fault := func(format string, args ...any) { pp.faults = append(pp.faults, fmt.Sprintf(format, args...)) }
	if pp.MAC == (MAC{}) || pp.MAC[0]&1 != 0 {
		if pp.Admitted {
			fault("%s is no MAC of a container", pp.MAC)
		}
		return
	}
	key := bridgeMAC{pp.Bridge, pp.MAC}
	if other, ok := o.macs[key]; ok {
		fault("its MAC %s is that of %s on the same bridge: give the container another --mac-address", pp.MAC, o.holder(other))
		return
	}
	for _, a := range pp.own() {
		if other, ok := o.addrs[at(pp.Bridge, a)]; ok {
			fault("its address %s is that of %s: give the container another", a, o.holder(other))
			return
		}
	}
	o.macs[key] = pp.Index
	for _, a := range pp.own() {
		o.addrs[at(pp.Bridge, a)] = pp.Index
	}
}

// holder names an owner for people.
func (o owners) holder(port int) string {
	switch port {
	case ownerBridge:
		return "the bridge"
	case ownerElsewhere:
		return "a container on a network that is not managed"
	}
	has := o.ports[port]
	if has.Container == "" {
		return fmt.Sprintf("port %s of bridge %s", has.Name, has.BridgeName)
	}
	return "container " + has.Container
}

// answers gives the addresses of the port's container on other bridges, without those that
// have another owner.
func (pp *portPlan) answers(o owners) []netip.Addr {
	var out []netip.Addr
	for _, a := range pp.Answers {
		a = a.Unmap()
		other, taken := o.addrs[at(pp.Bridge, a)]
		if a.IsLinkLocalUnicast() || taken && (other < 0 || other == pp.Index || o.ports[other].Container != pp.Container) {
			continue
		}
		out = append(out, a)
	}
	return out
}
