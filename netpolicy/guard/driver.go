package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"netguard/netpolicy/guard/checksum"
)

// ErrNothingApplied says that Read was called before Apply.
var ErrNothingApplied = errors.New("guard: nothing was applied yet")

// Driver holds the netlink sockets of the network namespace that it was opened
// in. One goroutine owns it.
type Driver struct {
	log      *slog.Logger
	links    rtnl
	filter   *filter
	limiter  *filter
	arp      *filter
	notices  *notices // nil where the kernel does not tell
	features Features
	// namespace is the network namespace that it was opened in.
	namespace uint64

	wish   Wish // of the last Apply
	plan   *plan
	layout layout

	kernel     kernelState
	generation uint32       // of nftables, when the table was read
	seen       map[int]Port // ports that were looked at, as they were wished
	// carried are the counts of tables that were replaced.
	carried map[counted]uint64
	last    map[int]PortReport // at the last report
	counts  *counts            // nil where they are to be read
	// settled says that the last Apply left nothing to be done, so that what is
	// to be done now was changed by somebody else; unhealed that Read has looked
	// since.
	settled, unhealed bool
	round             int // of the looks at a part of all ports
	// twice says that the last wish named a port twice.
	twice bool
	// failed are the errors of the last Apply, by port; 0 is no port's.
	failed map[int][]error
	// newcomers are the ports, by ifindex, that are to be introduced.
	newcomers map[int]struct{}
	// announced are the link-local addresses of ports that neighbours were told of; nil
	// before the first Apply.
	announced map[int][]netip.Addr

	// program is what ports have at their entrance; nil where the kernel cannot.
	program     *checksum.Program
	programMode Mode
	named       map[checksum.ID]bool // programs, and whether their name is netguard's
}

// Open opens the sockets. It changes nothing. The features are those that Probe
// found.
func Open(features Features, log *slog.Logger) (*Driver, error) {
	// Without a filter an address says nothing about who sent a packet.
	features.Limits = features.Limits && features.Filter
	features.ARP = features.ARP && features.Filter
	d := &Driver{log: log, features: features, seen: map[int]Port{}, carried: map[counted]uint64{}, newcomers: map[int]struct{}{},
		named: map[checksum.ID]bool{}}
	d.kernel = kernelState{ports: map[int]bridgePort{}, pins: map[int]map[MAC]fdbEntry{}, neighbours: map[Neighbour]MAC{},
		bridges: map[int]MAC{}, gateways: map[int][]netip.Addr{}, no6: map[int]bool{}, learned: map[int]uint32{}, before: map[int]settings{}, programs: map[int][]attached{}}
	var err error
	if d.namespace, err = here(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if d.links, err = openRtnl(); err != nil {
		return nil, err
	}
	if d.filter, err = openFilter(bridgeFamily, TableName); err != nil {
		d.Close()
		return nil, err
	}
	if d.limiter, err = openFilter(limitFamily, TableName); err != nil {
		d.Close()
		return nil, err
	}
	if d.arp, err = openFilter(arpFamily, TableName); err != nil {
		d.Close()
		return nil, err
	}
	d.notices = openNotices(d.filter, d.limiter, d.arp)
	return d, nil
}

// Close closes the sockets; what they wrote stays.
func (d *Driver) Close() {
	d.links.close()
	d.notices.close()
	if d.filter != nil {
		d.filter.close()
	}
	if d.limiter != nil {
		d.limiter.close()
	}
	if d.arp != nil {
		d.arp.close()
	}
	if d.program != nil {
		_ = d.program.Close()
	}
}

// Features are what this kernel has.
func (d *Driver) Features() Features { return d.features }

// Apply brings the kernel to the wish and says what it holds then. What goes wrong
// with one port is in that port's report and keeps no other from being guarded; the
// error is about all of them. The first Apply looks at everything.
func (d *Driver) Apply(w Wish, look Look) (Report, error) {
	if len(w.Ports) > maxPorts {
		return Report{}, fmt.Errorf("guard: %d ports, at most %d", len(w.Ports), maxPorts)
	}
	if err := d.programFor(w.Mode); err != nil {
		return Report{}, fmt.Errorf("guard: %w", err)
	}
	r, drift, done, err := d.applySome(w, look)
	if err == nil && !done {
		// What nobody tells of only a look at everything finds here.
		look.Full = look.Full || look.Unheard || d.plan == nil
		r, err = d.applyAll(w, look, drift)
	}
	if err != nil {
		err = fmt.Errorf("guard: %w", err)
	}
	return r, err
}

// applyAll compares all ports with the kernel. What was found changed already is in drift.
func (d *Driver) applyAll(w Wish, look Look, drift []string) (Report, error) {
	ports := byIndex(w.Ports)
	news, err := d.observe(ports, w.Bridges, look)
	if err != nil {
		return Report{}, err
	}
	if d.settled && !news && !d.unhealed && d.wish.equal(w) {
		return d.report(work{}), nil
	}
	l := d.layout
	if l.id == "" || l.options != w.Options {
		if l, err = newLayout(w.Options, d.features); err != nil {
			return Report{}, err
		}
	}
	was := d.plan
	if d.settled && (news || d.unhealed) {
		drift = append(drift, sentences(diff(d.plan, &d.kernel, d.features, d.layout))...)
	}
	d.layout, d.plan, d.failed = l, d.newPlan(w), map[int][]error{}
	d.expect(was)
	todo := diff(d.plan, &d.kernel, d.features, d.layout)
	// What is swept comes again by itself while ports that nobody wishes for send.
	changes := todo.count()
	if look.Full {
		if err := d.sweep(&todo); err != nil {
			return Report{}, err
		}
	}
	done, left := todo.count(), todo
	d.settled = d.settled && done == 0 // what an error leaves undone is nobody else's doing
	// Both before anybody is admitted whom they are for.
	held, attached, err := d.watchPorts(w, todo, l)
	if err != nil {
		return Report{}, err
	}
	limits := error(nil)
	if limits = d.limit(todo.limits); limits != nil {
		d.failed[0] = append(d.failed[0], limits)
		held = d.hold(held, limits, func(p *Port) bool { return p.Connections > 0 })
	}
	if err := d.commitTo(d.arp, d.kernel.arp, todo.arp, arpSets()); err != nil {
		d.failed[0] = append(d.failed[0], fmt.Errorf("refuse ARP of unknown ports: %w", err))
	}
	if attached || limits != nil {
		d.plan = d.newPlan(held)
		if limits != nil { // it is to refuse what no rule of the bridge can tell
			d.plan.sets[setRouted] = elements{}
		}
		todo = diff(d.plan, &d.kernel, d.features, d.layout)
	}
	if done > 0 {
		if err := d.carryOut(todo); err != nil {
			return Report{}, err
		}
		if _, err := d.observe(ports, w.Bridges, Look{Links: todo.touched()}); err != nil {
			return Report{}, fmt.Errorf("read back: %w", err)
		}
		left = diff(d.plan, &d.kernel, d.features, d.layout)
	}
	if look.Full && !d.features.Filter {
		d.prune(left)
	}
	d.settled, d.unhealed = left.count() == 0, false
	d.twice = len(ports) != len(w.Ports)
	d.keep(w)
	d.introduce(left)
	r := d.report(left)
	r.Changes, r.Drift = changes, drift
	return r, errors.Join(d.failed[0]...)
}

// keep keeps a wish that was applied.
func (d *Driver) keep(w Wish) {
	d.wish = w
	d.wish.Ports, d.wish.Bridges, d.wish.Others = slices.Clone(w.Ports), slices.Clone(w.Bridges), slices.Clone(w.Others)
	d.wish.Taken = slices.Clone(w.Taken)
}

// newPlan works a wish out with what only the kernel says.
func (d *Driver) newPlan(w Wish) *plan {
	p := newPlan(w.with(&d.kernel), d.features, d.kernel.bridges)
	p.programs(d.program, &d.kernel, nil)
	p.reassembly(&d.kernel.reassembly, w.Options, d.features)
	p.bounds(w)
	return p
}

func byIndex(ports []Port) map[int]Port {
	out := make(map[int]Port, len(ports))
	for _, p := range ports {
		out[p.Index] = p
	}
	return out
}

// touched are the ports that steps are about.
func (w work) touched() map[int]struct{} {
	out := map[int]struct{}{}
	for _, s := range slices.Concat(w.additions, w.settings, w.deletions) {
		if s.op != opNeighbour && s.op != opForget && s.op != opKnob && s.op != opLearn {
			out[s.port] = struct{}{}
		}
	}
	return out
}

// sweep adds the counters of ports that the wish does not name to what is to be
// deleted.
func (d *Driver) sweep(w *work) error {
	refused, err := d.forgotten()
	if err != nil {
		return err
	}
	if !w.limits.create && !w.limits.remove && len(refused) > 0 {
		maps.Copy(w.limits.del, refused)
	}
	if !d.features.Filter || w.admit.create {
		return nil // the counters begin anew
	}
	counts, err := d.filter.violations()
	if err != nil {
		return err
	}
	stale := elements{}
	for key := range counts {
		if _, ok := d.plan.ports[key.port]; !ok {
			stale[key.element()] = ""
		}
	}
	if len(stale) > 0 {
		w.release.del[setViolations] = stale
	}
	maps.DeleteFunc(d.carried, func(key counted, _ uint64) bool {
		_, ok := d.plan.ports[key.port]
		return !ok
	})
	return nil
}
