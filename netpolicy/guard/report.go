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
	left, err := d.left(look)
	if err != nil {
		return Report{}, fmt.Errorf("guard: %w", err)
	}
	d.unhealed = left.count() > 0
	r := d.report(left)
	r.Changes, r.Drift = left.count(), sentences(left)
	return r, d.count(&r)
}

// left reads what may have changed and says what the kernel lacks.
func (d *Driver) left(look Look) (work, error) {
	look.Full = look.Full || look.Unheard
	if d.settled && !d.unhealed && !look.Full {
		same, err := !d.features.Filter, error(nil)
		if !same {
			same, err = d.same()
		}
		if same {
			var seen replanned
			if seen, same, err = d.observeSome(nil, d.wish.Bridges, look); same && err == nil {
				return d.diffSome(seen), nil
			}
		}
		if err != nil {
			return work{}, err
		}
	}
	ports := map[int]Port{}
	for index, pp := range d.plan.ports {
		ports[index] = pp.Port
	}
	if _, err := d.observe(ports, d.wish.Bridges, look); err != nil {
		return work{}, err
	}
	return diff(d.plan, &d.kernel, d.features, d.layout), nil
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

// report says what is true, given what is left to be done.
func (d *Driver) report(left work) Report {
	about := left.about()
	d.last = make(map[int]PortReport, len(d.plan.ports))
	for index, pp := range d.plan.ports {
		d.last[index] = d.portReport(pp, about[index])
	}
	return Report{Ports: d.last, Warnings: d.warnings()}
}

// reportSome is report where only some ports can be otherwise than at the last report.
func (d *Driver) reportSome(ports map[int]struct{}, left work) Report {
	if len(ports) > 0 {
		about := left.about()
		d.last = maps.Clone(d.last)
		for index := range ports {
			if pp := d.plan.ports[index]; pp != nil {
				d.last[index] = d.portReport(pp, about[index])
			} else {
				delete(d.last, index)
			}
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

// sentences lists what is to be done, or was found undone, in words.
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
