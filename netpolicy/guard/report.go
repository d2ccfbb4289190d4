package guard

import (
	"fmt"
	"maps"
	"slices"
)

// Read compares the kernel with what the last Apply wanted, and changes nothing. It reads
// the counters. It reads the tables when somebody else changed them. Of the rest it reads
// only what the look names.
func (d *Driver) Read(look Look) (Report, error) {
	if d.plan == nil {
		return Report{}, ErrNothingApplied
	}
	seen, err := d.observe(d.wish, nil, true, look)
	if err != nil {
		return Report{}, fmt.Errorf("guard: %w", err)
	}
	// What is news here is none to the next Apply, and the plan is from before. After a full
	// look, that Apply has the same look: it makes a new plan anyway.
	news := seen.all && !look.Full
	seen.all = seen.all || !d.settled
	left := d.diff(seen)
	d.unsure = d.unsure || news || left.count() > 0
	r := d.report(seen, left)
	r.Changes, r.Drift = left.count(), sentences(left)
	return r, d.count(&r)
}

// count adds to a report what the kernel has counted.
func (d *Driver) count(r *Report) error {
	d.counts = nil
	violations, err := d.Violations()
	if err != nil {
		return err
	}
	r.Violations = violations
	return nil
}

// report says what is true of each port, given the work that is left. Ports that the scope does
// not name are as at the last report.
func (d *Driver) report(s scope, left work) Report {
	if s.all {
		s, d.last = everything(d.plan, &d.kernel), map[int]PortReport{}
	}
	about := left.about()
	for index := range about {
		if index != 0 { // of no port
			s.ports[index] = struct{}{}
		}
	}
	shared := !s.all // with whoever got the last report
	for index := range s.ports {
		var now PortReport // of a port that is in no wish
		if pp := d.plan.ports[index]; pp != nil {
			now = d.portReport(pp, about[index])
		}
		was := d.last[index]
		if was.State == now.State && was.Passes == now.Passes && slices.Equal(was.Faults, now.Faults) {
			continue
		}
		if shared {
			d.last, shared = maps.Clone(d.last), false
		}
		if d.last[index] = now; now.State == "" {
			delete(d.last, index)
		}
	}
	return Report{Ports: d.last, Warnings: d.warnings()}
}

func (d *Driver) portReport(pp *portPlan, left []string) PortReport {
	p := PortReport{State: pp.state, Faults: slices.Clone(pp.faults)}
	for _, err := range d.failed[pp.Index] {
		p.Faults = append(p.Faults, err.Error())
	}
	p.Passes = d.kernel.table == nil || !d.kernel.table.present || d.kernel.table.admits(&pp.Port)
	k, here := d.kernel.ports[pp.Index]
	switch {
	case pp.state == Trusted:
	case !here || k.bridge != pp.Bridge:
		p.State = Gone
	case len(left)+len(d.failed[pp.Index]) > 0:
		p.State = Pending
		for _, what := range left {
			p.Faults = append(p.Faults, "not in the kernel: "+what)
		}
	}
	return p
}

// sentences lists the work in words.
func sentences(w work) []string {
	if w.admit.create { // all of its sets are new as well
		return w.admit.describe("bridge " + TableName)
	}
	var out []string
	for port, all := range w.about() {
		for _, what := range all {
			if port != 0 {
				what = fmt.Sprintf("port %d: %s", port, what)
			}
			out = append(out, what)
		}
	}
	slices.Sort(out)
	return out
}
