package reconcile

import (
	"context"
	"net/netip"
	"slices"

	"netguard/agent/desired"
	"netguard/internal/changed"
)

// handover knows which addresses changed their owner. The kernel's connections outlive a
// container. The next container with its address would get the answers to them, whatever
// policies say of it. It is part of the loop's goroutine.
type handover struct {
	endpoints []*desired.Endpoint // of the last look
	// owners are the containers that have an address, by ID; nil before the first look.
	owners map[netip.Addr][]string
	// old are the addresses whose connections are still to be ended, ending those whose
	// connections are listed for that now.
	old, ending map[netip.Addr]bool
}

// look compares with the look before. standing gives the ports that an earlier agent
// admitted, and is asked at the first look only: a container that came while no agent
// ran has had no connection of its own, so what there is was somebody else's.
func (h *handover) look(endpoints []*desired.Endpoint, standing func() (map[int]bool, error)) error {
	if h.old == nil {
		h.old = map[netip.Addr]bool{}
	}
	if h.owners == nil {
		stand, err := standing()
		if err != nil {
			return err
		}
		for _, d := range endpoints {
			if stand == nil || d.Unmanaged != "" || d.Port != nil && stand[d.Port.Index] {
				continue
			}
			for _, a := range d.Own() {
				h.old[a] = true
			}
		}
	}
	if h.owners == nil {
		h.owners = map[netip.Addr][]string{}
	}
	gone, came := changed.Between(h.endpoints, endpoints)
	before := map[netip.Addr][]string{}
	each := func(all []*desired.Endpoint, change func(netip.Addr, string)) {
		for _, d := range all {
			if d.Unmanaged != "" {
				continue
			}
			for _, a := range d.Own() {
				if _, noted := before[a]; !noted {
					before[a] = slices.Clone(h.owners[a])
				}
				change(a, d.Key.Container)
			}
		}
	}
	each(gone, func(a netip.Addr, id string) {
		if i := slices.Index(h.owners[a], id); i >= 0 {
			h.owners[a] = slices.Delete(h.owners[a], i, i+1)
		}
	})
	each(came, func(a netip.Addr, id string) { h.owners[a] = append(h.owners[a], id) })
	for a, was := range before {
		slices.Sort(h.owners[a])
		if len(was) > 0 && !slices.Equal(slices.Compact(was), slices.Compact(slices.Clone(h.owners[a]))) {
			h.old[a] = true
		}
		if len(h.owners[a]) == 0 {
			delete(h.owners, a)
		}
	}
	h.endpoints = endpoints
	return nil
}

// blind says that it could not be told whom an earlier agent admitted.
func (h *handover) blind() bool { return h.owners == nil }

// waits tells whether connections of others have to end before the endpoint may be
// admitted.
func (h *handover) waits(d *desired.Endpoint) bool {
	return len(h.old)+len(h.ending) > 0 && slices.ContainsFunc(d.Own(), func(a netip.Addr) bool { return h.old[a] || h.ending[a] })
}

// urgent tells whether somebody waits.
func (h *handover) urgent(endpoints []*desired.Endpoint) bool {
	return len(h.old)+len(h.ending) > 0 && slices.ContainsFunc(endpoints, func(d *desired.Endpoint) bool { return d.Unmanaged == "" && h.waits(d) })
}

// handOver ends what is left of addresses' former owners before the next are admitted: it
// begins at once where somebody waits for it. The owners are looked at where an endpoint is
// another one than before.
func (l *Loop) handOver(ctx context.Context, want *desired.State) {
	cutting := &l.policing.cutting
	if want.Changed || l.handover.blind() {
		standing := func() (map[int]bool, error) {
			if want.Config.AdmissionOpen { // who came unseen may have connections of its own
				return nil, nil
			}
			e, err := l.guarding.plane.Earlier()
			return e.Admitted, err
		}
		if err := l.handover.look(want.Endpoints, standing); err != nil {
			l.log.Error("it cannot be told whom an earlier agent admitted; trying again", "error", err)
			cutting.pace.Failed()
		}
	}
	switch {
	case len(l.handover.old) == 0:
	case l.handover.urgent(want.Endpoints):
		l.list(ctx, want)
	default:
		cutting.pace.Wake()
	}
}

// list has connections listed, unless a list goes on. It tells what listed tells.
func (l *Loop) list(ctx context.Context, want *desired.State) bool {
	l.policing.cutting.begin(ctx, &l.handover, l.wakeup.Call)
	return l.listed(want)
}

// listed ends connections of the list that goes on. It tells whether the list is over, and
// somebody waited for that.
func (l *Loop) listed(want *desired.State) bool {
	waited := l.handover.urgent(want.Endpoints)
	over := l.policing.cutting.next(&l.handover, l.policing.ruling, host{l.Links.Addresses, l.routes.to, want.Links.Bridges})
	return over && waited
}
