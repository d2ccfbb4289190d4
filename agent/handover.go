package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"netguard/netpolicy/guard"
)

// handover knows which addresses are not whose they were. The kernel's connections
// outlive a container. Whoever has its address next would be handed the answers to
// them, whatever policies say of him. It is part of the loop's goroutine.
type handover struct {
	// owners are the IDs of the containers that have an address; nil before the first look.
	owners map[netip.Addr]string
	// old are the addresses whose connections are still to be ended.
	old map[netip.Addr]bool
}

// look compares with the look before. standing gives the ports that an earlier agent
// admitted, and is asked at the first look only: a container that came while no agent
// ran has had no connection of its own, so what there is was somebody else's.
func (h *handover) look(desires []*desire, standing func() (map[int]bool, error)) error {
	owners := map[netip.Addr]string{}
	for _, d := range desires {
		if d.Unmanaged != "" {
			continue
		}
		for _, a := range d.own() {
			if owners[a] == "" { // nearly all have one owner
				owners[a] = d.Key.Container
				continue
			}
			all := append(strings.Fields(owners[a]), d.Key.Container)
			slices.Sort(all)
			owners[a] = strings.Join(slices.Compact(all), " ")
		}
	}
	if h.old == nil {
		h.old = map[netip.Addr]bool{}
	}
	if h.owners == nil {
		stand, err := standing()
		if err != nil {
			return err
		}
		for _, d := range desires {
			if stand == nil || d.Unmanaged != "" || d.Port != nil && stand[d.Port.Index] {
				continue
			}
			for _, a := range d.own() {
				h.old[a] = true
			}
		}
	}
	for a, before := range h.owners {
		if owners[a] != before {
			h.old[a] = true
		}
	}
	h.owners = owners
	return nil
}

// blind says that it could not be told whom an earlier agent admitted.
func (h *handover) blind() bool { return h.owners == nil }

// waits tells whether connections of others have to end before the endpoint may be
// admitted.
func (h *handover) waits(d *desire) bool {
	return len(h.old) > 0 && slices.ContainsFunc(d.own(), func(a netip.Addr) bool { return h.old[a] })
}

// urgent tells whether somebody waits.
func (h *handover) urgent(desires []*desire) bool {
	return len(h.old) > 0 && slices.ContainsFunc(desires, func(d *desire) bool { return d.Unmanaged == "" && h.waits(d) })
}

// handOver ends the connections of addresses that are not whose they were, at once where
// somebody waits for it.
func (p *police) handOver(ctx context.Context, h *handover, urgent bool) {
	if len(h.old) == 0 {
		return
	}
	if !urgent {
		if soon := time.Now().Add(cutSoon); p.cut.IsZero() || p.cut.After(soon) {
			p.cut = soon
		}
		return
	}
	n, err := p.driver.End(ctx, h.old)
	if err != nil {
		p.log.Error("connections of containers that are gone cannot be ended; those that have their addresses wait, trying again", "error", err)
		p.cut = time.Now().Add(minFailing)
		return
	}
	if n > 0 {
		p.log.Info("connections of containers that are gone were ended", "connections", n, "addresses", len(h.old))
	}
	clear(h.old)
}

// handOver ends what is left of addresses' former owners before the next are admitted.
// The owners are looked at where a desire is another one than before.
func (l *loop) handOver(ctx context.Context, desires []*desire, changed bool) {
	standing := leftBy(l.sentry.driver, func(e guard.Earlier) map[int]bool { return e.Admitted })
	if l.settings.config().AdmissionOpen { // who came unseen may have connections of its own
		standing = func() (map[int]bool, error) { return nil, nil }
	}
	if changed || l.handover.blind() {
		if err := l.handover.look(desires, standing); err != nil {
			l.log.Error("it cannot be told whom an earlier agent admitted; trying again", "error", err)
			l.police.cut = time.Now().Add(minFailing)
		}
	}
	l.police.handOver(ctx, &l.handover, l.handover.urgent(desires))
}
