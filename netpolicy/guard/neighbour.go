package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// neighbourProtocol marks the neighbour entries that are netguard's, as "proto
// 110" (NDA_PROTOCOL, Linux 5.0).
const neighbourProtocol = 110

// ndaProtocol is NDA_PROTOCOL.
const ndaProtocol = 12

// Neighbour identifies a neighbour entry of the host.
type Neighbour struct {
	Bridge int // ifindex
	Addr   netip.Addr
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// neighbours lists netguard's own permanent entries.
func (r rtnl) neighbours() (map[Neighbour]MAC, error) {
	out := map[Neighbour]MAC{}
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		answers, err := r.dump(unix.RTM_GETNEIGH, ndmsg(fam, 0, 0, 0), nil)
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for _, a := range answers {
			if err := parseNeighbour(a, out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// neighbour asks for one entry (Linux 5.0), if it is netguard's own.
func (r rtnl) neighbour(k Neighbour) (MAC, bool, error) {
	answers, err := r.send(unix.RTM_GETNEIGH, 0, ndmsg(family(k.Addr), k.Bridge, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_DST, k.Addr.AsSlice())
	})
	if gone(err) {
		return MAC{}, false, nil
	}
	if err != nil {
		return MAC{}, false, fmt.Errorf("get neighbour %s: %w", k.Addr, err)
	}
	found := map[Neighbour]MAC{}
	for _, a := range answers {
		if err := parseNeighbour(a, found); err != nil {
			return MAC{}, false, err
		}
	}
	mac, ok := found[k]
	return mac, ok, nil
}

func parseNeighbour(data []byte, into map[Neighbour]MAC) error {
	if len(data) < sizeofNdMsg {
		return fmt.Errorf("parse neighbour: %d bytes are too few", len(data))
	}
	if binary.NativeEndian.Uint16(data[8:])&unix.NUD_PERMANENT == 0 {
		return nil
	}
	key := Neighbour{Bridge: int(int32(binary.NativeEndian.Uint32(data[4:])))}
	var mac MAC
	ours := false
	err := attributes(data[sizeofNdMsg:], func(typ uint16, b []byte) error {
		switch {
		case typ == unix.NDA_DST:
			key.Addr, _ = netip.AddrFromSlice(b)
		case typ == unix.NDA_LLADDR && len(b) == len(mac):
			mac = MAC(b)
		case typ == ndaProtocol:
			ours = uintOf(b) == neighbourProtocol
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("parse neighbour: %w", err)
	}
	if ours && key.Addr.IsValid() {
		into[key] = mac
	}
	return nil
}

// addNeighbour adds a permanent entry: the host sends to this address at this MAC for good.
func (r rtnl) addNeighbour(k Neighbour, mac MAC) error {
	err := r.write("neighbour add", unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace,
		ndmsg(family(k.Addr), k.Bridge, unix.NUD_PERMANENT, 0), func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.NDA_DST, k.Addr.AsSlice())
			ae.Bytes(unix.NDA_LLADDR, mac[:])
			ae.Uint8(ndaProtocol, neighbourProtocol)
		})
	if err != nil {
		return fmt.Errorf("add neighbour %s: %w", k.Addr, err)
	}
	return nil
}

// correctNeighbour changes the MAC of an entry that the host learnt, if there is one. An
// entry that somebody made for good stays.
func (r rtnl) correctNeighbour(k Neighbour, mac MAC) error {
	answers, err := r.send(unix.RTM_GETNEIGH, 0, ndmsg(family(k.Addr), k.Bridge, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_DST, k.Addr.AsSlice())
	})
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get neighbour %s: %w", k.Addr, err)
	}
	const learnt = unix.NUD_INCOMPLETE | unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_FAILED
	for _, a := range answers {
		if len(a) < sizeofNdMsg || binary.NativeEndian.Uint16(a[8:])&learnt == 0 {
			return nil
		}
	}
	err = r.write("neighbour correct", unix.RTM_NEWNEIGH, netlink.Replace, ndmsg(family(k.Addr), k.Bridge, unix.NUD_STALE, 0), func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_DST, k.Addr.AsSlice())
		ae.Bytes(unix.NDA_LLADDR, mac[:])
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("correct neighbour %s: %w", k.Addr, err)
	}
	return nil
}

// deleteNeighbour removes an entry; one that is not there is fine.
func (r rtnl) deleteNeighbour(k Neighbour) error {
	err := r.write("neighbour delete", unix.RTM_DELNEIGH, 0, ndmsg(family(k.Addr), k.Bridge, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_DST, k.Addr.AsSlice())
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("delete neighbour %s: %w", k.Addr, err)
	}
	return nil
}
