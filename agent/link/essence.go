package link

import (
	"encoding/binary"
	"hash/maphash"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/internal/netlinkattr"
)

// A container with NET_ADMIN can make the kernel report thousands of times a second that the
// carrier of its port, and of its bridge, went and came. So a message counts only if something
// else in it changed since the last message. Only two things are compared: what the host alone
// sets, and where the peer is.

// essence is a hash of the parts that count of the last messages about a link.
type essence struct{ link, port uint64 } // of the device, and as a port of a bridge

var seed = maphash.MakeSeed()

// Attributes of ports and of bridges that change by themselves, or by what containers
// send: states, timers and counts.
var (
	portVaries = [64]bool{nl.IFLA_BRPORT_STATE: true, nl.IFLA_BRPORT_ROOT_ID: true, nl.IFLA_BRPORT_BRIDGE_ID: true,
		nl.IFLA_BRPORT_DESIGNATED_PORT: true, nl.IFLA_BRPORT_DESIGNATED_COST: true, nl.IFLA_BRPORT_TOPOLOGY_CHANGE_ACK: true,
		nl.IFLA_BRPORT_CONFIG_PENDING: true, nl.IFLA_BRPORT_MESSAGE_AGE_TIMER: true, nl.IFLA_BRPORT_FORWARD_DELAY_TIMER: true,
		nl.IFLA_BRPORT_HOLD_TIMER: true, nl.IFLA_BRPORT_MCAST_EHT_HOSTS_CNT: true, nl.IFLA_BRPORT_MCAST_N_GROUPS: true}
	bridgeVaries = [64]bool{nl.IFLA_BR_ROOT_ID: true, nl.IFLA_BR_ROOT_PORT: true, nl.IFLA_BR_ROOT_PATH_COST: true,
		nl.IFLA_BR_TOPOLOGY_CHANGE: true, nl.IFLA_BR_TOPOLOGY_CHANGE_DETECTED: true, nl.IFLA_BR_HELLO_TIMER: true,
		nl.IFLA_BR_TCN_TIMER: true, nl.IFLA_BR_TOPOLOGY_CHANGE_TIMER: true, nl.IFLA_BR_GC_TIMER: true,
		querierState: true, learned: true}
)

// Attributes of bridges in linux/if_link.h: IFLA_BR_MCAST_QUERIER_STATE (Linux 5.16) and
// IFLA_BR_FDB_N_LEARNED (6.7).
const querierState, learned = 46, 47

// same tells whether a link message says nothing new, and keeps what it says. The first
// message about a link is always new. The caller holds t.refresh.
func (t *Table) same(m syscall.NetlinkMessage, index int) bool {
	var h maphash.Hash
	h.SetSeed(seed)
	port := m.Data[0] == unix.AF_BRIDGE
	if !port {
		flags := binary.NativeEndian.Uint32(m.Data[8:])
		if flags&unix.IFF_UP != 0 {
			h.WriteByte(1)
		}
	}
	walk(m.Data[unix.SizeofIfInfomsg:], func(typ uint16, raw, value []byte) {
		switch {
		case typ == unix.IFLA_MASTER:
			h.Write(raw)
		case port && typ == unix.IFLA_PROTINFO:
			without(&h, value, &portVaries)
		case port:
		case typ == unix.IFLA_LINKINFO:
			linkInfo(&h, value)
		case typ == unix.IFLA_IFNAME, typ == unix.IFLA_ADDRESS, typ == unix.IFLA_MTU, typ == unix.IFLA_TXQLEN,
			typ == unix.IFLA_LINK, typ == unix.IFLA_LINK_NETNSID:
			h.Write(raw)
		}
	})
	was, sum := t.heard[index], h.Sum64()
	now := was
	if port {
		now.port = sum
	} else {
		now.link = sum
	}
	t.heard[index] = now
	return was == now
}

// linkInfo adds the settings that belong to the kind of a link, and those of a port.
func linkInfo(h *maphash.Hash, info []byte) {
	var kind, slave string
	walk(info, func(typ uint16, raw, value []byte) {
		switch typ {
		case unix.IFLA_INFO_KIND:
			kind = unix.ByteSliceToString(value)
			h.Write(raw)
		case unix.IFLA_INFO_SLAVE_KIND:
			slave = unix.ByteSliceToString(value)
			h.Write(raw)
		case unix.IFLA_INFO_DATA:
			if kind == "bridge" {
				without(h, value, &bridgeVaries)
			}
		case unix.IFLA_INFO_SLAVE_DATA:
			if slave == "bridge" {
				without(h, value, &portVaries)
			}
		}
	})
}

func without(h *maphash.Hash, attrs []byte, leave *[64]bool) {
	walk(attrs, func(typ uint16, raw, _ []byte) {
		if int(typ) >= len(leave) || !leave[typ] {
			h.Write(raw)
		}
	})
}

// walk goes through attributes, up to the first that is cut off.
func walk(b []byte, do func(typ uint16, raw, value []byte)) {
	_ = netlinkattr.Walk(b, func(typ uint16, raw, value []byte) error { do(typ, raw, value); return nil })
}
