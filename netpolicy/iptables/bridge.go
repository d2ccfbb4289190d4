package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// bridgeSet records the bridges on which netguard switched nf_call_iptables or
// nf_call_ip6tables on. A set of the kernel is in the same network namespace as the bridge,
// outlives the agent, and is gone after a reboot, as the flag is. No rule uses the set.
func bridgeSet(ipv6 bool) setSpec {
	return setSpec{name: netpolicy.SetPrefix(ipv6) + "bridges", typ: hashNetIface, ipv6: ipv6}
}

// nfCall are the flags that make a bridge hand its frames to iptables.
var nfCall = [2]uint16{nl.IFLA_BR_NF_CALL_IPTABLES, nl.IFLA_BR_NF_CALL_IP6TABLES}

// bridgeFilter is a file that exists if br_netfilter is loaded. Without br_netfilter the flags
// of a bridge do nothing.
const bridgeFilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// Bridges makes the bridges whose value is true hand their frames to iptables, and puts all
// other bridges back to what they were before netguard. It switches only flags on that were
// off, and only flags off that it recorded. The host's own switch
// (net.bridge.bridge-nf-call-iptables) stays as it is. A bridge that does not exist is left
// out. off are the bridges that another program switched off since the last call.
//
// Without br_netfilter the error is ErrNoBridgeFilter: then rules do not see the traffic
// between containers of one bridge. An error about some bridges is a BridgeError.
func (d *Driver) Bridges(wish map[string]bool) (off []string, err error) {
	var wanted []string
	for name, on := range wish {
		if on {
			wanted = append(wanted, name)
		}
	}
	slices.Sort(wanted)
	recorded, err := d.recorded()
	if err != nil {
		return nil, fmt.Errorf("set bridges: %w", err)
	}
	if err := d.recordAgain(wish, &recorded); err != nil {
		return nil, fmt.Errorf("set bridges: %w", err)
	}
	failed := BridgeError{}
	for _, i := range d.families {
		for name := range recorded[i] {
			if !wish[name] {
				if err := d.restoreBridge(i, name); err != nil {
					failed[name] = errors.Join(failed[name], err)
					continue
				}
				delete(recorded[i], name)
			}
		}
	}
	_, missing := os.Stat(d.bridgeFilter)
	for _, name := range wanted {
		undone, err := false, ErrNoBridgeFilter
		if missing == nil {
			undone, err = d.switchBridge(name, &recorded)
		}
		if undone {
			off = append(off, name)
		}
		if err != nil {
			failed[name] = err
		}
	}
	d.switched = recorded
	if len(failed) > 0 {
		return off, fmt.Errorf("set bridges: %w", failed)
	}
	return off, nil
}

// BridgeError tells for each bridge that could not be set the reason.
type BridgeError map[string]error

func (e BridgeError) Error() string {
	var texts []string
	for _, err := range e.Unwrap() {
		// Equal errors are told once.
		if text := err.Error(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

// Unwrap gives all errors, in the order of the bridges' names.
func (e BridgeError) Unwrap() []error {
	var all []error
	for _, name := range slices.Sorted(maps.Keys(e)) {
		all = append(all, e[name])
	}
	return all
}

// recordAgain puts back what another program deleted from the record. Without the record the
// bridges would stay switched on after netguard.
func (d *Driver) recordAgain(wish map[string]bool, recorded *[2]map[string]bool) error {
	for _, i := range d.families {
		for name := range d.switched[i] {
			if wish[name] && !recorded[i][name] {
				if err := d.record(i, name, recorded); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (d *Driver) record(i int, name string, recorded *[2]map[string]bool) error {
	spec := bridgeSet(i == 1)
	if recorded[i] == nil {
		if err := d.sets.create(spec); err != nil {
			return err
		}
		recorded[i] = map[string]bool{}
	}
	if err := d.sets.change(spec, false, bridgeElement(i, name)); err != nil {
		return err
	}
	recorded[i][name] = true
	return nil
}

// recorded reads which bridges netguard switched on, nil for a family without a record.
func (d *Driver) recorded() ([2]map[string]bool, error) {
	var out [2]map[string]bool
	for _, i := range d.families {
		spec := bridgeSet(i == 1)
		h, err := d.sets.header(spec.name)
		if err != nil {
			return out, err
		}
		if h == nil {
			continue
		}
		if !h.is(spec) {
			return out, fmt.Errorf("use set %s (%s): %w", spec.name, h.typ, ErrForeign)
		}
		list, err := d.sets.members(spec.name)
		if err != nil {
			return out, err
		}
		out[i] = map[string]bool{}
		for _, e := range list {
			out[i][e.Bridge] = true
		}
	}
	return out, nil
}

// bridgeElement is the record of a bridge. A set of this type takes at most 64 interfaces with
// the same prefix, so each bridge has a prefix of its own, from a range without addresses of
// hosts. Only the name is ever read.
func bridgeElement(i int, name string) []element {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // it cannot fail
	n := h.Sum32()
	a := netip.AddrFrom4([4]byte{240 | byte(n>>24&0x0f), byte(n >> 16), byte(n >> 8), byte(n)})
	if i == 1 {
		// 100::/64 is for what is to be thrown away (RFC 6666).
		a = netip.AddrFrom16([16]byte{0: 1, 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
	}
	return []element{{Member: netpolicy.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Bridge: name}}}
}

// switchBridge switches the flags on that are off, and tells whether another program switched
// one off. It records a flag first: a recorded flag that was not switched on is put back to
// off, which does no harm.
func (d *Driver) switchBridge(name string, recorded *[2]map[string]bool) (undone bool, err error) {
	b, err := d.bridge(name)
	if err != nil || b == nil {
		return false, err
	}
	for _, i := range d.families {
		if b.on[i] {
			continue
		}
		if !recorded[i][name] {
			if err := d.record(i, name, recorded); err != nil {
				return undone, err
			}
		} else {
			undone = undone || d.switched[i][name]
		}
		if err := d.begin(i, name); err != nil {
			return undone, fmt.Errorf("filter bridge %s: %w", name, err)
		}
		if err := d.setBridge(b.index, i, true); err != nil {
			return undone, fmt.Errorf("filter bridge %s: %w", name, err)
		}
	}
	return undone, nil
}

// restoreBridge switches off what netguard switched on, and deletes the record then.
func (d *Driver) restoreBridge(i int, name string) error {
	b, err := d.bridge(name)
	if err != nil {
		return err
	}
	if b != nil && b.on[i] {
		if err := d.setBridge(b.index, i, false); err != nil {
			return fmt.Errorf("restore bridge %s: %w", name, err)
		}
	}
	return d.sets.change(bridgeSet(i == 1), true, bridgeElement(i, name))
}

type bridge struct {
	index int32
	on    [2]bool
}

// bridge asks for a bridge by its name, nil if there is none.
func (d *Driver) bridge(name string) (*bridge, error) {
	if len(name) == 0 || len(name) >= unix.IFNAMSIZ {
		return nil, nil
	}
	b := attr(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, text(name)...)
	var found *bridge
	err := d.links.ask(unix.RTM_GETLINK, 0, b, func(m []byte) bool {
		found = parseBridge(m)
		return true
	})
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for bridge %s: %w", name, err)
	}
	return found, nil
}

func parseBridge(m []byte) *bridge {
	if len(m) < unix.SizeofIfInfomsg {
		return nil
	}
	b := &bridge{index: int32(binary.NativeEndian.Uint32(m[4:]))}
	is := false
	for typ, v := range attrs(m[unix.SizeofIfInfomsg:]) {
		if typ != unix.IFLA_LINKINFO {
			continue
		}
		for typ, v := range attrs(v) {
			switch typ {
			case nl.IFLA_INFO_KIND:
				is = word(v) == "bridge"
			case nl.IFLA_INFO_DATA:
				for typ, v := range attrs(v) {
					for i, flag := range nfCall {
						if typ == flag {
							b.on[i] = number8(v) != 0
						}
					}
				}
			}
		}
	}
	if !is {
		return nil
	}
	return b
}

// setBridge sets one flag of a bridge, and nothing else.
func (d *Driver) setBridge(ifindex int32, i int, on bool) error {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	b = nest(b, unix.IFLA_LINKINFO, func(b []byte) []byte {
		b = attr(b, nl.IFLA_INFO_KIND, []byte("bridge")...)
		return nest(b, nl.IFLA_INFO_DATA, func(b []byte) []byte {
			value := byte(0)
			if on {
				value = 1
			}
			return attr(b, int(nfCall[i]), value)
		})
	})
	return d.links.write(unix.RTM_NEWLINK, 0, b)
}
