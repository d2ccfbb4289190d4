package guard

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A bridge remembers each MAC that a frame comes from: 143 bytes for five minutes, before any
// rule about unknown ports sees the frame. Guarded ports do not learn. A port that came while
// no agent was running does: it fills the host's memory with half a million MACs a second. So
// a managed bridge learns some thousands of MACs at most (Linux 6.8). Entries that netguard
// adds for guarded ports do not count. Where rules see the bridge of a port, they refuse such
// frames before the bridge learns.

// maxMACs is how many MACs a bridge learns. Nobody else would choose this number: a bridge
// that has it got it from netguard, and had no limit before.
const maxMACs = 4093

// bounds plans which bridges are limited.
func (p *plan) bounds(w Wish) {
	p.bounded = map[int]bool{}
	if w.Mode != Enforce {
		return
	}
	for _, b := range w.Bridges {
		p.bounded[b.Index] = true
	}
	for _, port := range w.Ports {
		p.bounded[port.Bridge] = true
	}
}

// diffLearned compares. A limit that somebody else set stays.
func diffLearned(w *work, p *plan, k *kernelState) {
	for _, bridge := range sortedKeys(k.learned) {
		switch now := k.learned[bridge]; {
		case p.bounded[bridge] && now == 0:
			w.settings = append(w.settings, step{op: opLearn, bridge: bridge, learn: maxMACs})
		case !p.bounded[bridge] && now == maxMACs:
			w.settings = append(w.settings, step{op: opLearn, bridge: bridge})
		}
	}
}

// bound limits what a bridge learns.
func (d *Driver) bound(s step) error {
	err := d.links.learn(s.bridge, s.learn)
	if gone(err) {
		delete(d.kernel.learned, s.bridge)
		return nil
	}
	if err == nil {
		d.kernel.learned[s.bridge] = s.learn
	}
	return err
}

// learn sets how many MACs a bridge learns.
func (r rtnl) learn(bridge int, n uint32) error {
	err := r.write("bridge settings", unix.RTM_NEWLINK, 0, ifinfomsg(unix.AF_UNSPEC, bridge), func(ae *netlink.AttributeEncoder) {
		nest(ae, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_INFO_KIND, "bridge")
			nest(ae, func(ae *netlink.AttributeEncoder) { ae.Uint32(unix.IFLA_BR_FDB_MAX_LEARNED, n) }, unix.IFLA_INFO_DATA)
		}, unix.IFLA_LINKINFO)
	})
	if err != nil {
		return fmt.Errorf("limit what bridge %d learns to %d: %w", bridge, n, err)
	}
	return nil
}

// learned gives how many MACs each bridge learns, 0 for any number. Bridges of a kernel
// that knows no limit are left out.
func (r rtnl) learned() (map[int]uint32, error) {
	all, err := r.bridges()
	out := map[int]uint32{}
	for _, b := range all {
		if b.limits {
			out[b.index] = b.learned
		}
	}
	return out, err
}

// bridges lists the bridges of the host.
func (r rtnl) bridges() ([]bridgeDevice, error) {
	answers, err := r.dump(unix.RTM_GETLINK, ifinfomsg(unix.AF_UNSPEC, 0), func(ae *netlink.AttributeEncoder) {
		nest(ae, func(ae *netlink.AttributeEncoder) { ae.String(unix.IFLA_INFO_KIND, "bridge") }, unix.IFLA_LINKINFO)
	})
	if err != nil {
		return nil, fmt.Errorf("list bridges: %w", err)
	}
	out := make([]bridgeDevice, 0, len(answers))
	for _, a := range answers {
		b, err := parseBridge(a)
		if err != nil {
			return nil, fmt.Errorf("parse bridge: %w", err)
		}
		out = append(out, b)
	}
	return out, nil
}
