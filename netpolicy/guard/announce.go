package guard

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// announce tells neighbours the MACs of containers that were just admitted.
//
// A neighbour may remember another MAC for a container's address: Docker 28 and later give a
// container a new MAC at each start. The container announces its MAC itself at its start, but
// nobody hears it while the container is quarantined. A kernel believes an announcement only if
// it knows the address already (arp_accept, RFC 4861 section 7.2.5). And announce tells only the
// MAC and addresses that Docker gave. So nobody gains anything by it.
//
// Extra addresses that a label names are not announced: the other container of a failover pair
// may be using them.
func (d *Driver) announce(socket int, news []*portPlan) {
	for _, pp := range news {
		if pp.MAC == (MAC{}) {
			continue
		}
		if pp.IPv4.IsValid() {
			d.tell(socket, pp, pp.IPv4)
		}
		if pp.IPv6.IsValid() {
			d.tell(socket, pp, pp.IPv6)
			d.tell(socket, pp, pp.MAC.LinkLocal())
		}
		d.correct(pp)
	}
}

// later gives the link-local addresses, by port, that neighbours were not told of yet. A
// container gets some of them only after its admission. At the first Apply, an earlier agent has
// announced those that are there.
func (d *Driver) later(s scope, about map[int][]string) map[*portPlan][]netip.Addr {
	first := d.announced == nil
	if first {
		d.announced = map[int][]netip.Addr{}
	}
	if s.all {
		s = everything(d.plan, &d.kernel)
		for index := range d.announced {
			s.ports[index] = struct{}{}
		}
	}
	out := map[*portPlan][]netip.Addr{}
	for index := range s.ports {
		pp := d.plan.ports[index]
		if pp == nil {
			delete(d.announced, index)
			continue
		}
		_, waits := d.newcomers[index]
		if len(pp.LinkLocals) == 0 || waits || pp.state == Quarantined || len(d.failed[index])+len(about[index]) > 0 {
			continue
		}
		for _, a := range pp.LinkLocals {
			if !first && !slices.Contains(d.announced[index], a) {
				out[pp] = append(out[pp], a)
			}
		}
		d.announced[index] = slices.Clone(pp.LinkLocals)
	}
	return out
}

// announceLinkLocals tells neighbours and the host the MAC of link-local addresses that no label
// names.
func (d *Driver) announceLinkLocals(socket int, pp *portPlan, addrs []netip.Addr) {
	for _, a := range addrs {
		d.tell(socket, pp, a)
		if err := d.links.correctNeighbour(Neighbour{pp.Bridge, a}, pp.MAC); err != nil {
			d.log.Debug("the host may remember another MAC of a container", "veth", pp.Name, "address", a, "error", err)
		}
	}
}

// tell announces one address of a port.
func (d *Driver) tell(socket int, pp *portPlan, a netip.Addr) {
	send := func(port int, frame []byte) {
		if err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: port}); err != nil {
			d.log.Debug("neighbours are not told of a new container", "veth", pp.Name, "error", err)
		}
	}
	if a.Is4() {
		// One frame for all. It comes from the bridge, so that ports which are not
		// admitted do not get it.
		if bridge, ok := d.kernel.bridges[pp.Bridge]; ok {
			send(pp.Bridge, gratuitous(bridge, pp.MAC, a))
		}
		return
	}
	for _, to := range d.plan.neighboursOf(pp) {
		// One frame each: the container itself would take an advertisement of its
		// address for a duplicate.
		if frame := advert(to, pp.MAC, a); frame != nil {
			send(to.Index, frame)
		}
	}
}

// neighboursOf gives the other containers of a port's bridge that can receive.
func (p *plan) neighboursOf(of *portPlan) []*portPlan {
	var all []*portPlan
	for index, pp := range p.ports {
		if index != of.Index && pp.Bridge == of.Bridge && pp.MAC != (MAC{}) && (pp.state == Admitted || pp.state == Trusted) {
			all = append(all, pp)
		}
	}
	return all
}

// gratuitous is a gratuitous reply of ARP (RFC 5227 section 3) to everybody.
func gratuitous(from, mac MAC, a netip.Addr) []byte {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, from[:]...)
	frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2)
	for range 2 { // sender and target
		frame = append(append(frame, mac[:]...), a.AsSlice()...)
	}
	return frame
}

// correct tells the host's own neighbour table the MAC of a port that is not guarded. For a
// guarded port the host has a permanent entry.
func (d *Driver) correct(pp *portPlan) {
	if pp.state != Trusted {
		return
	}
	for _, a := range pp.own() {
		if err := d.links.correctNeighbour(Neighbour{pp.Bridge, a}, pp.MAC); err != nil {
			d.log.Debug("the host may remember another MAC of a new container", "veth", pp.Name, "error", err)
		}
	}
}
