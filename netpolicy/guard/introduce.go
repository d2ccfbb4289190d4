package guard

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// maxIntroduced is how many addresses a container is told at most when it is admitted.
const maxIntroduced = 512

// expect notes the ports that are not admitted yet. Each of them is introduced when it is
// admitted, even if attempts fail before. At the first Apply, the table tells which ports an
// earlier agent admitted.
func (d *Driver) expect(s scope, first bool) {
	ports := s.ports
	if s.all {
		ports = everything(d.plan, &d.kernel).ports
		maps.Copy(ports, d.newcomers)
	}
	for index := range ports {
		switch pp := d.plan.ports[index]; {
		case pp == nil:
			delete(d.newcomers, index)
		case pp.state == Quarantined, first && d.refuses(pp), !first && d.last[index].State == "":
			d.newcomers[index] = struct{}{}
		}
	}
}

// refuses tells whether the table that was found refuses all that a port sends.
func (d *Driver) refuses(pp *portPlan) bool {
	t := d.kernel.table
	if t == nil || !t.present {
		return false
	}
	if pp.state == Trusted {
		_, known := t.sets[setKnown][element{key: portKey(pp.Index)}]
		return !known
	}
	return !t.admits(&pp.Port)
}

// introduce tells containers that were just admitted the MACs of their neighbours.
//
// A container may start before its admission and ask for a neighbour, by ARP or neighbour
// discovery. The guard refuses that question. The container's kernel asks again after a second,
// and its packets wait until then. So introduce sends the answers that the container would have
// got. A kernel ignores answers to questions that it did not ask (arp_accept, RFC 4861 section
// 7.2.5). Nothing depends on these answers, so an error is only logged.
func (d *Driver) introduce(s scope, left work) {
	if d.plan.mode == Monitor {
		return
	}
	about := left.about()
	var news []*portPlan
	for index := range d.newcomers {
		if pp := d.plan.ports[index]; pp.state != Quarantined && len(d.failed[index])+len(about[index]) == 0 {
			news = append(news, pp)
			delete(d.newcomers, index)
			delete(d.announced, index)
		}
	}
	later := d.later(s, about)
	if len(news)+len(later) == 0 {
		return
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		d.log.Debug("new containers are not told of their neighbours", "error", err)
		return
	}
	defer unix.Close(socket)
	for _, pp := range news {
		for _, frame := range d.plan.answers(pp, d.kernel.bridges[pp.Bridge]) {
			// Straight to the container's end: no bridge and no other port sees it.
			if err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: pp.Index}); err != nil {
				d.log.Debug("a new container is not told of its neighbours", "veth", pp.Name, "error", err)
				break
			}
		}
	}
	d.announce(socket, news)
	for pp, addrs := range later {
		d.announceLinkLocals(socket, pp, addrs)
	}
}

// answers gives the frames that tell a container the MACs of others: of the bridge first, then
// of the other containers.
func (p *plan) answers(to *portPlan, bridge MAC) [][]byte {
	var frames [][]byte
	tell := func(mac MAC, addrs ...netip.Addr) {
		for _, a := range addrs {
			if len(frames) < maxIntroduced {
				if f := advert(to, mac, a.Unmap()); f != nil {
					frames = append(frames, f)
				}
			}
		}
	}
	if bridge != (MAC{}) {
		tell(bridge, append(slices.Clone(to.Gateways), bridge.LinkLocal())...)
	}
	for _, pp := range p.neighboursOf(to) {
		tell(pp.MAC, append(pp.own(), pp.LinkLocals...)...)
	}
	return frames
}

// advert is a reply of ARP or a neighbour advertisement to a container, nil for an
// address that it cannot have asked for.
func advert(to *portPlan, mac MAC, a netip.Addr) []byte {
	const longest = 14 + 40 + 32
	frame := append(append(make([]byte, 0, longest), to.MAC[:]...), mac[:]...)
	switch {
	case a.Is4() && to.IPv4.IsValid():
		frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2)
		frame = append(append(frame, mac[:]...), a.AsSlice()...)
		return append(append(frame, to.MAC[:]...), to.IPv4.AsSlice()...)
	case a.Is6():
		own := to.MAC.LinkLocal()
		if !a.IsLinkLocalUnicast() {
			if own = to.IPv6; !own.IsValid() {
				return nil
			}
		}
		from, at := a.As16(), own.As16()
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, unix.IPPROTO_ICMPV6, 255)
		frame = append(append(frame, from[:]...), at[:]...)
		// The flags solicited and override, then the address that the message is about.
		frame = append(append(frame, 136, 0, 0, 0, 0x60, 0, 0, 0), from[:]...)
		frame = append(append(frame, 2, 1), mac[:]...)
		message := frame[14+40:]
		binary.BigEndian.PutUint16(message[2:], sum6(from, at, message))
		return frame
	}
	return nil
}

// sum6 is the checksum of a message of ICMPv6 (RFC 4443 section 2.3).
func sum6(from, to [16]byte, message []byte) uint16 {
	var sum uint32
	for _, part := range [][]byte{from[:], to[:], {0, byte(len(message)), 0, unix.IPPROTO_ICMPV6}, message} {
		for ; len(part) > 1; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
