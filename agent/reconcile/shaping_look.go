package reconcile

import (
	"errors"
	"time"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/shaper/tc"
)

// verify compares what is due with the kernel, and repairs it.
func (s *shaping) verify(ports []*link.Port, wanted map[uint64]*desired.Endpoint) {
	looks, rounds := s.all || s.look.Due(), s.round.Due()
	if !looks && !rounds {
		return
	}
	s.changes++
	all, due, orphans := s.all && looks, s.due, s.orphans
	if looks {
		s.look.Begin()
		s.due, s.orphans = map[int]struct{}{}, map[int]struct{}{}
	} else {
		due, orphans = nil, nil
	}
	chosen := s.chosen(ports, wanted, all, due, rounds)
	if err := s.compare(chosen, wanted); err != nil {
		s.log.Error("kernel cannot be read", "error", err)
		for index := range due {
			s.mark(index)
		}
		for index := range orphans {
			s.orphans[index] = struct{}{}
		}
		if looks {
			s.look.Failed()
		}
	} else {
		s.clear(ports, wanted, all, orphans)
		if looks {
			s.all = s.all && !all
			s.look.Done()
		}
	}
	if rounds {
		s.round.Begin()
		s.round.Done()
	}
}

// chosen are the ports to look at: those that are due, and the next ones of the round.
func (s *shaping) chosen(ports []*link.Port, wanted map[uint64]*desired.Endpoint, all bool, due map[int]struct{}, round bool) []*link.Port {
	var out []*link.Port
	left := 0
	if round {
		left = roundPorts
	}
	began := s.now()
	for _, p := range ports {
		_, named := due[p.Index]
		if d := wanted[p.Seen]; left > 0 && p.Seen > s.last && d != nil && !d.Form().Empty() {
			named, left, s.last = true, left-1, p.Seen
		}
		r := s.ports[p.Seen]
		switch {
		case !all && !named:
		case r != nil && r.contest.on() && began.Before(r.contest.until()) && r.form == wanted[p.Seen].FormOrNone():
			s.again(p, r.contest.until())
		case r != nil && r.err != nil && began.Before(r.until):
			s.again(p, r.until)
		default:
			out = append(out, p)
		}
	}
	if left > 0 {
		s.last = 0 // the next round begins
	}
	return out
}

// again has a port looked at by a time.
func (s *shaping) again(p *link.Port, at time.Time) {
	s.mark(p.Index)
	s.look.By(at)
}

// clear deletes the IFBs of ports that are gone. What cannot be deleted is tried again, and
// holds up nothing else.
func (s *shaping) clear(ports []*link.Port, wanted map[uint64]*desired.Endpoint, all bool, orphans map[int]struct{}) {
	sweeps := all || s.sweep.Due()
	if !sweeps && len(orphans) == 0 {
		return
	}
	keep := map[int]bool{}
	for _, p := range ports {
		d := wanted[p.Seen]
		keep[p.Index] = d != nil && d.Wish.Egress != nil
	}
	var err error
	if sweeps {
		var n int
		if n, err = s.plane.Sweep(func(veth int) bool { return keep[veth] }); n > 0 {
			s.log.Debug("deleted IFBs without a port", "count", n)
		}
	} else {
		var left []int
		for veth := range orphans {
			if !keep[veth] {
				left = append(left, veth)
			}
		}
		err = s.plane.Drop(left)
	}
	switch {
	case err != nil:
		s.log.Error("IFBs without a port cannot be deleted; trying again", "error", err)
		s.sweep.Begin()
		s.sweep.Failed()
		s.look.By(s.sweep.Next())
	case sweeps:
		s.sweep.Begin()
		s.sweep.Done()
	}
}

// compare reads ports and repairs them.
func (s *shaping) compare(ports []*link.Port, wanted map[uint64]*desired.Endpoint) error {
	if len(ports) == 0 {
		return nil
	}
	indexes := make([]int, len(ports))
	for i, p := range ports {
		indexes[i] = p.Index
	}
	have, err := s.plane.Read(indexes)
	if err != nil {
		return err
	}
	for _, p := range ports {
		s.settle(p, wanted[p.Seen], have[p.Index])
	}
	return nil
}

// settle repairs a port, and notes why it cannot where that is so.
func (s *shaping) settle(p *link.Port, d *desired.Endpoint, have tc.Port) {
	r := s.record(p)
	began := s.now()
	known, was := r.known, r.err
	err := s.repair(p, d, r, have)
	if known != r.known || (was == nil) != (err == nil) {
		s.version++
	}
	if delete(s.contested, p.Seen); r.contest.on() {
		s.contested[p.Seen] = true
		s.again(p, r.contest.next(began, began.Add(verifyEvery)))
	}
	if err == nil {
		r.err, r.wait, r.until = nil, 0, time.Time{}
		return
	}
	if errors.As(err, new(undoneError)) {
		r.err, r.wait, r.until = err, 0, time.Time{}
		return // repair has it read again
	}
	if r.err == nil || r.err.Error() != err.Error() {
		s.log.Error("port cannot be shaped; trying again until it can", "veth", p.Name, "error", err)
	}
	if r.err = err; errors.As(err, new(ConflictError)) {
		r.wait, r.until = 0, time.Time{} // the kernel tells when it is gone
		return
	}
	r.wait = min(max(2*r.wait, minFailing), maxFailing)
	r.until = began.Add(r.wait)
	s.again(p, r.until)
}
