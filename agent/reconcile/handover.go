package reconcile

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"netguard/agent/config"
	"netguard/agent/desired"
	"netguard/internal/changed"
	"netguard/netpolicy/iptables"
)

// handover knows which addresses changed their owner. The kernel keeps the connections of a
// container that is gone. The next container with the same address would get their answers,
// whatever its policies say. handover is part of the loop's goroutine.
type handover struct {
	endpoints []*desired.Endpoint // of the last look
	// owners are the containers that have an address, by ID; nil before the first look.
	owners map[netip.Addr][]string
	// old are addresses whose connections must end, but are not listed yet. ending are
	// addresses whose connections are being listed now, so that they end.
	old, ending map[netip.Addr]bool
}

// look compares the owners of addresses with those at the last look. If the owner changed, the
// connections of the address must end. They must also end if the address gets its first owner:
// there may have been an owner that the agent never knew. There are two exceptions for a first
// owner. It may have connections of its own, because its port was open or unmanaged until now.
// Or the address cannot have any connections.
func (h *handover) look(endpoints []*desired.Endpoint, open func(*desired.Endpoint) bool, vacant func() func(netip.Addr) bool) {
	if h.owners == nil {
		h.owners, h.old = map[netip.Addr][]string{}, map[netip.Addr]bool{}
	}
	gone, came := changed.Between(h.endpoints, endpoints)
	before, own, free := map[netip.Addr][]string{}, map[netip.Addr]bool{}, map[uint64]bool{}
	for _, d := range gone {
		if d.Unmanaged != "" && d.Port != nil {
			free[d.Port.Seen] = true
		}
	}
	each := func(all []*desired.Endpoint, change func(netip.Addr, *desired.Endpoint)) {
		for _, d := range all {
			if d.Unmanaged != "" {
				continue
			}
			for _, a := range d.Own() {
				if _, noted := before[a]; !noted {
					before[a] = slices.Clone(h.owners[a])
				}
				change(a, d)
			}
		}
	}
	each(gone, func(a netip.Addr, d *desired.Endpoint) {
		if i := slices.Index(h.owners[a], d.Key.Container); i >= 0 {
			h.owners[a] = slices.Delete(h.owners[a], i, i+1)
		}
	})
	each(came, func(a netip.Addr, d *desired.Endpoint) {
		h.owners[a] = append(h.owners[a], d.Key.Container)
		own[a] = own[a] || open(d) || d.Port != nil && free[d.Port.Seen]
	})
	ask := sync.OnceValue(vacant)
	for a, was := range before {
		slices.Sort(h.owners[a])
		same := slices.Equal(slices.Compact(was), slices.Compact(slices.Clone(h.owners[a])))
		if !same && (len(was) > 0 || !own[a] && !h.ending[a] && !ask()(a)) {
			h.old[a] = true
		}
		if len(h.owners[a]) == 0 {
			delete(h.owners, a)
		}
	}
	h.endpoints = endpoints
}

// blind says that no look has succeeded yet: it is unknown what an earlier agent admitted.
func (h *handover) blind() bool { return h.owners == nil }

// end notes that the list of ending is over, with its error. Addresses stay in ending if their
// connections did not end. It tells whether some did not stay.
func (h *handover) end(err error) bool {
	before := len(h.ending)
	remain, partly := errors.AsType[*iptables.RemainError](err)
	switch {
	case err == nil:
		h.ending = nil
	case partly:
		maps.DeleteFunc(h.ending, func(a netip.Addr, _ bool) bool { return !remain.Addrs[a] })
	}
	return len(h.ending) < before
}

// waits tells whether a former owner's connections have to end before the endpoint may be
// admitted.
func (h *handover) waits(d *desired.Endpoint) bool {
	return len(h.old)+len(h.ending) > 0 && slices.ContainsFunc(d.Own(), func(a netip.Addr) bool { return h.old[a] || h.ending[a] })
}

// urgent tells whether any managed endpoint waits.
func (h *handover) urgent(endpoints []*desired.Endpoint) bool {
	return len(h.old)+len(h.ending) > 0 && slices.ContainsFunc(endpoints, func(d *desired.Endpoint) bool { return d.Unmanaged == "" && h.waits(d) })
}

// handOver begins to end the connections that former owners of addresses left. The new owners
// are admitted only after that. If one of them waits, it begins at once, otherwise soon. It
// looks at the owners if an endpoint changed, or if no look has succeeded yet.
func (l *Loop) handOver(ctx context.Context, want *desired.State) {
	cutting := &l.policing.cutting
	if want.Changed || l.handover.blind() {
		if open, err := l.open(want.Config); err != nil {
			l.log.Error("it cannot be told whom an earlier agent admitted; trying again", "error", err)
			cutting.pace.Failed()
		} else {
			l.handover.look(want.Endpoints, open, l.policing.cutting.vacant)
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

// open gives a function that tells whether an endpoint's port may have been open until now. At
// the first look these are the ports that an earlier agent admitted, or all ports if no agent
// left a table. Later they are the ports that this agent admitted.
func (l *Loop) open(cfg *config.Config) (func(*desired.Endpoint) bool, error) {
	if cfg.AdmissionOpen {
		return func(*desired.Endpoint) bool { return true }, nil
	}
	if !l.handover.blind() {
		return func(d *desired.Endpoint) bool { return d.Port != nil && l.admitted[d.Port.Seen] }, nil
	}
	e, err := l.Guard.Earlier()
	return func(d *desired.Endpoint) bool { return e.Admitted == nil || d.Port != nil && e.Admitted[d.Port.Index] }, err
}

// list starts a list of connections, unless one is running. It returns what listed returns.
func (l *Loop) list(ctx context.Context, want *desired.State) bool {
	l.policing.cutting.begin(ctx, &l.handover, l.wakeup.Call)
	return l.listed(want)
}

// listed ends connections of the running list. It tells whether the list is over and an
// endpoint waited for that.
func (l *Loop) listed(want *desired.State) bool {
	waited := l.handover.urgent(want.Endpoints)
	over := l.policing.cutting.next(&l.handover, l.policing.ruling, host{l.Links.Addresses, l.routes.to, want.Seen.Links.Bridges})
	return over && waited
}
