package reconcile

import (
	"errors"
	"fmt"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// repair brings one port to its wanted limits; d is nil if no limits are wanted.
func (s *shaping) repair(p *link.Port, d *desired.Endpoint, r *shaped, have tc.Port) error {
	if have.Err != nil {
		return s.unlessGone(p, have.Err)
	}
	delete(s.ifbs, r.ifb)
	r.ifb, r.leads = have.IFBIndex, have.IFB != nil
	if r.ifb != 0 {
		s.ifbs[r.ifb] = p.Index
	}
	var wish shaper.Wish
	var want desired.Form
	if d != nil {
		wish, want = d.Wish, d.Form()
	}
	steps := shaper.Diff(have.Endpoint, wish)
	same := r.known && r.form == want
	if d != nil {
		r.known, r.form = true, want // also where it fails: from here on only looks try
	}
	if len(steps) > 0 {
		r.leads = r.leads || wish.Egress != nil
		s.mark(p.Index) // it is read back
		s.look.Wake()
	}
	if err := s.plane.Apply(p.Index, p.Name, steps); err != nil {
		if same && d != nil && s.undone(p, err) {
			s.drifted(p, d, r, steps, "shaping was changed by somebody else while it was put back; trying again")
			return undoneError{err}
		}
		return s.unlessGone(p, err)
	}
	switch {
	case len(steps) == 0:
		r.contest.calm(s.log, s.now())
		if err := s.plane.Apply(p.Index, p.Name, shaper.Leftovers(have.Endpoint, wish)); err != nil {
			s.log.Debug("classes of an earlier version stay", "veth", p.Name, "error", err)
		}
	case same && d != nil:
		s.drifted(p, d, r, steps, "shaping was changed by somebody else; restored")
	}
	if d == nil {
		r.known, r.form = false, desired.Form{}
	}
	return Conflict(have.Endpoint, wish, p.Name)
}

// undoneError says that another program undid steps while netguard still wrote. They are tried
// again as soon as any other drift is repaired.
type undoneError struct{ error }

func (e undoneError) Unwrap() error { return e.error }

// undone tells whether a step failed because another program undid the steps before it.
func (s *shaping) undone(p *link.Port, err error) bool {
	var at shaper.StepError
	if !errors.As(err, &at) || s.gone(p.Index) {
		return false
	}
	have, err := s.plane.Read([]int{p.Index})
	return err == nil && have[p.Index].Err == nil && at.Undone(have[p.Index].Endpoint)
}

// drifted notes that another program changed a port, and logs the steps that put it back.
func (s *shaping) drifted(p *link.Port, d *desired.Endpoint, r *shaped, steps []shaper.Step, what string) {
	if !r.contest.drifted(s.log, "the limits of "+d.Container.Name, s.now(), []string{steps[0].String() + " (" + p.Name + ")"}, nil) {
		s.log.Warn(what, "container", d.Container.Name, "network", d.Network.Name, "veth", p.Name, "steps", steps)
	}
}

// unlessGone drops an error about a port that is gone: the kernel reports its end next.
func (s *shaping) unlessGone(p *link.Port, err error) error {
	if s.gone(p.Index) {
		return nil
	}
	return err
}

// ConflictError names the foreign qdisc or filter that is in the place of a limit.
type ConflictError string

func (e ConflictError) Error() string { return string(e) }

// Conflict is a ConflictError; nil if nothing foreign is in the place of a limit.
func Conflict(have shaper.Endpoint, wish shaper.Wish, veth string) error {
	switch in, out := shaper.Conflicts(have, wish); {
	case in:
		return ConflictError(fmt.Sprintf("another program's %s qdisc stands at the root of %s, so ingress is not limited: if nothing needs it, remove it with tc qdisc del dev %s root",
			have.Veth.Root.Kind, veth, veth))
	case out:
		return ConflictError(fmt.Sprintf("another program's filter or qdisc stands at the ingress of %s, so egress is not limited: if nothing needs it, remove it with tc qdisc del dev %s ingress",
			veth, veth))
	}
	return nil
}
