package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"

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
	seen       map[int]Port // ports that were read, as the wish had them then
	// carried are the counts of tables that were replaced.
	carried map[counted]uint64
	last    map[int]PortReport // at the last report
	counts  *counts            // nil if they must be read
	// settled says that the last Apply left no work. So somebody else made any difference
	// that is there now.
	settled bool
	// unsure says that the kernel may differ from the plan: the next Apply compares
	// everything.
	unsure bool
	round  int // the part of all ports that widen reads next
	// twice says that the last wish named a port twice.
	twice bool
	// failed are the errors of the last Apply, by port; 0 is no port's.
	failed map[int][]error
	// newcomers are the ports, by ifindex, that are introduced when they are admitted.
	newcomers map[int]struct{}
	// announced are the link-local addresses of ports that were announced to neighbours;
	// nil before the first Apply.
	announced map[int][]netip.Addr

	// program is attached to the ingress of each guarded port; nil if the kernel cannot run it.
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
	for family, table := range map[nftables.TableFamily]**filter{bridgeFamily: &d.filter, limitFamily: &d.limiter, arpFamily: &d.arp} {
		if *table, err = openFilter(family, TableName); err != nil {
			d.Close()
			return nil, err
		}
	}
	d.notices = openNotices(d.filter, d.limiter, d.arp)
	return d, nil
}

// Close closes the sockets; what they wrote stays.
func (d *Driver) Close() {
	d.links.close()
	d.notices.close()
	d.kernel.reassembly.close()
	for _, f := range []*filter{d.filter, d.limiter, d.arp} {
		if f != nil {
			f.close()
		}
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
	r, whole, err := d.apply(w, look, nil)
	if err == nil && !whole && len(d.failed) > 0 {
		// The failure may come from a change that the kernel has not reported yet.
		r, _, err = d.apply(w, look, r.Drift)
	}
	if err = errors.Join(append(d.failed[0], err)...); err != nil {
		err = fmt.Errorf("guard: %w", err)
	}
	return r, err
}

// apply does what Apply does, and tells whether it compared everything. It adds to drift what
// it finds changed.
func (d *Driver) apply(w Wish, look Look, drift []string) (r Report, whole bool, err error) {
	d.failed = map[int][]error{}
	changed, some := d.changed(w)
	seen, err := d.observe(w, changed, some, look)
	if err != nil {
		return r, false, err
	}
	if d.settled {
		drift = append(drift, sentences(d.diff(seen))...)
	}
	d.settled = false // after an error, a difference is nobody else's doing
	first := d.plan == nil
	s, err := d.replan(w, changed, some, seen)
	if err != nil {
		return r, s.all, err
	}
	whole = s.all
	d.expect(s, first)
	left := d.diff(s)
	changes := left.count()
	if whole { // swept counters are no change: they come back while unknown ports send
		if err := d.sweep(&left); err != nil {
			return r, whole, err
		}
	}
	if left.count() > 0 {
		if s, left, err = d.write(w, s, left); err != nil {
			return r, whole, err
		}
	}
	if whole && !d.features.Filter {
		d.prune(left)
	}
	d.settled, d.unsure = left.count()+len(d.failed) == 0, false
	d.twice = len(d.plan.ports) != len(w.Ports)
	d.wish = w
	d.introduce(s, left)
	r = d.report(s, left)
	r.Changes, r.Drift = changes, drift
	return r, whole, nil
}

// write does the work, reads the kernel back, and gives the work that is left.
func (d *Driver) write(w Wish, s scope, todo work) (scope, work, error) {
	table := d.kernel.table
	// The programs and the limits come first: a port that needs one is not admitted without it.
	held, attached, err := d.watchPorts(w, todo, d.layout)
	if err != nil {
		return s, todo, err
	}
	limits := d.limit(todo.limits)
	if limits != nil {
		d.note(0, limits)
		held = d.hold(held, limits, func(p *Port) bool { return p.Connections > 0 })
	}
	if err := d.commitTo(d.arp, d.kernel.arp, todo.arp, arpSets()); err != nil {
		d.note(0, fmt.Errorf("refuse ARP of unknown ports: %w", err))
	}
	switch {
	case len(d.failed) > 0:
		d.plan, s = d.newPlan(held), scope{all: true}
		if limits != nil { // without that table, no routed DHCP answer may leave; see dhcp_server.go
			d.plan.sets[setRouted] = elements{}
		}
		todo = d.diff(s)
	case attached:
		d.plan.programs(d.program, &d.kernel, s)
		todo = d.diff(s)
	}
	if err := d.carryOut(todo); err != nil {
		return s, todo, err
	}
	if s.all = s.all || d.kernel.table != table; s.all { // somebody else changed it meanwhile
		d.records()
	}
	if err := d.observeReassembly(false); err != nil {
		return s, todo, err
	}
	touched := todo.touched()
	for index := range touched {
		var port *Port
		if pp := d.plan.ports[index]; pp != nil {
			port = &pp.Port
		}
		if err := d.observePort(index, port, nil, Look{Links: touched}); err != nil {
			return s, todo, fmt.Errorf("read back: %w", err)
		}
	}
	return s, d.diff(s), nil
}

func (d *Driver) diff(s scope) work { return diff(d.plan, &d.kernel, d.features, d.layout, s) }

// newPlan works a wish out with what only the kernel says.
func (d *Driver) newPlan(w Wish) *plan {
	p := newPlan(w.with(&d.kernel), d.features, d.kernel.bridges)
	p.programs(d.program, &d.kernel, scope{all: true})
	p.reassembly(&d.kernel.reassembly, w.Options, d.features)
	p.bounds(w)
	return p
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

// sweep adds to the work: it deletes the counters of ports and addresses that the plan does not
// have.
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
