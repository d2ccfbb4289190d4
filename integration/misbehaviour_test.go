package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// ill is a container with NET_ADMIN that makes trouble, and others on its network.
type ill struct {
	*Container
	network string

	link   netlink.Link
	index  int
	port   *attack.Port
	mac    attack.MAC
	own    netip.Addr
	them   [2]reached
	nested []netns.NsHandle
	n      int
}

// reached is another container, as frames reach it.
type reached struct {
	mac  attack.MAC
	addr netip.Addr
}

// misbehaviour is something that a container does in a loop.
type misbehaviour struct {
	name    string
	alone   bool // the container is the bridge's only one
	watched bool // by a netguard monitor
	do      func(*ill) error
	setup   func(*ill) error
}

// prepare looks for the container's interface, and gives what it does each time, which
// is to be called in the container's namespace.
func (s *ill) prepare(what misbehaviour, others [2]*Container) (func() error, error) {
	s.own = s.IP(s.network)
	for i, c := range others {
		hw, err := net.ParseMAC(c.MAC("net"))
		if err != nil {
			return nil, err
		}
		s.them[i] = reached{attack.MAC(hw), c.IP("net")}
	}
	name := s.Interface(s.network)
	err := s.Inside().Do(func() (err error) {
		if s.link, err = netlink.LinkByName(name); err != nil {
			return err
		}
		s.index, s.mac = s.link.Attrs().Index, attack.MAC(s.link.Attrs().HardwareAddr)
		if s.port, err = attack.Open(s.link.Attrs().Name); err != nil {
			return err
		}
		if what.setup != nil {
			return what.setup(s)
		}
		return nil
	})
	return func() error { s.n++; return what.do(s) }, err
}

// other is one of many addresses of nobody.
func (s *ill) other() netip.Addr {
	return netip.AddrFrom4([4]byte{198, 19, byte(s.n % 10000 >> 8), byte(s.n)})
}

// anyMAC is one of very many.
func anyMAC() attack.MAC {
	n := rand.Uint32()
	return attack.MAC{2, 1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// frames sends a batch of frames that differ.
func frames(make func(s *ill) []byte) func(*ill) error {
	return func(s *ill) error {
		batch := [][]byte{}
		for range 64 {
			s.n++
			batch = append(batch, make(s))
		}
		_ = s.port.Send(batch...) // a full queue is no fault
		return nil
	}
}

var misbehaviours = []misbehaviour{
	{name: "nothing", do: func(*ill) error { unix.Nanosleep(&unix.Timespec{Nsec: 1e7}, nil); return nil }},
	{name: "link-up-down", do: (*ill).flap},
	{name: "link-up-down-alone", alone: true, do: (*ill).flap},
	{name: "MAC", do: func(s *ill) error {
		m := anyMAC()
		return netlink.LinkSetHardwareAddr(s.link, m[:])
	}},
	{name: "MTU", do: func(s *ill) error { return netlink.LinkSetMTU(s.link, 1400+s.n%2) }},
	{name: "queue-length", do: func(s *ill) error { return netlink.LinkSetTxQLen(s.link, 100+s.n%2) }},
	{name: "alias", do: func(s *ill) error { return netlink.LinkSetAlias(s.link, fmt.Sprint("x", s.n)) }},
	{name: "GSO", do: func(s *ill) error { return netlink.LinkSetGSOMaxSize(s.link, 30000+s.n%2) }},
	{name: "promiscuity", do: func(s *ill) error {
		if s.n%2 == 0 {
			return netlink.SetPromiscOff(s.link)
		}
		return netlink.SetPromiscOn(s.link)
	}},
	{name: "features", do: func(s *ill) error { return s.feature(s.n%2 == 0) }},
	{name: "addresses", do: func(s *ill) error {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: s.other().AsSlice(), Mask: net.CIDRMask(32, 32)}}
		if s.n%20000 < 10000 {
			return netlink.AddrReplace(s.link, a)
		}
		_ = netlink.AddrDel(s.link, a)
		return nil
	}},
	{name: "IPv6-addresses", setup: withIPv6, do: func(s *ill) error {
		ip := net.ParseIP(fmt.Sprintf("fd00:63::%x:%x", s.n>>16, s.n&0xffff))
		a := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(64, 128)}}
		if err := netlink.AddrReplace(s.link, a); err != nil || s.n%100 != 0 {
			return err
		}
		all, err := netlink.AddrList(s.link, netlink.FAMILY_V6)
		for _, a := range all {
			_ = netlink.AddrDel(s.link, &a)
		}
		return err
	}},
	{name: "neighbours", do: func(s *ill) error {
		m := anyMAC()
		n := &netlink.Neigh{LinkIndex: s.index, IP: s.other().AsSlice(), HardwareAddr: m[:], State: unix.NUD_REACHABLE}
		if err := netlink.NeighSet(n); err != nil {
			return err
		}
		return netlink.NeighDel(n)
	}},
	{name: "bridges", do: func(s *ill) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "b0"}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		return netlink.LinkDel(br)
	}},
	{name: "veths", do: func(s *ill) error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		return netlink.LinkDel(v)
	}},
	{name: "queues", do: func(s *ill) error {
		q := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: s.index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
		if err := netlink.QdiscReplace(q); err != nil {
			return err
		}
		return netlink.QdiscDel(q)
	}},
	{name: "moves", setup: (*ill).nest, do: (*ill).move},
	{name: "groups", do: (*ill).join},
	{name: "frames-of-forged-MACs", do: frames(func(s *ill) []byte {
		m := anyMAC()
		return attack.Ether(attack.Broadcast, m, attack.EtherARP, attack.ARP(attack.Request, m, s.own, attack.MAC{}, s.other()))
	})},
	{name: "frames-of-forged-addresses", do: frames(func(s *ill) []byte {
		return attack.Ether(attack.Broadcast, s.mac, attack.EtherIPv4, attack.UDP4(netip.AddrPortFrom(s.other(), 9), netip.AddrPortFrom(s.other(), 9)))
	})},
	{name: "ARP-requests", do: frames(func(s *ill) []byte {
		return attack.Ether(attack.Broadcast, s.mac, attack.EtherARP, attack.ARP(attack.Request, s.mac, s.own, attack.MAC{}, s.other()))
	})},
	{name: "router-advertisements", do: frames(func(s *ill) []byte {
		return attack.Ether(attack.Group(allNodes), s.mac, attack.EtherIPv6, attack.RouterAdvertisement(s.mac.LinkLocal(), allNodes))
	})},
	{name: "reports-of-groups", do: frames(func(s *ill) []byte {
		return attack.Report4(attack.MAC{1, 0, 0x5e, 0, 0, 0x16}, s.mac, s.own)
	})},
	{name: "frames-while-watched", watched: true, do: frames(func(s *ill) []byte {
		return attack.Ether(attack.Broadcast, anyMAC(), attack.EtherIPv4, attack.UDP4(netip.AddrPortFrom(s.other(), 9), netip.AddrPortFrom(s.other(), 9)))
	})},
	{name: "refused-connections-while-watched", watched: true, do: frames(func(s *ill) []byte { return s.syn(s.them[1]) })},
	{name: "fragments", do: func(s *ill) error {
		_ = s.port.Send(attack.LonelyFragments(s.them[0].mac, s.mac, s.own, s.them[0].addr, 64)...)
		return nil
	}},
	{name: "refused-connections", do: frames(func(s *ill) []byte { return s.syn(s.them[1]) })},
	{name: "half-open-connections", do: frames(func(s *ill) []byte { return s.syn(s.them[0]) })},
	{name: "connections-in-a-loop", do: (*ill).dial},
}
