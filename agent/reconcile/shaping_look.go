package reconcile

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/internal/changed"
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
	gone, came := changed.Between(s.looked, ports)
	for _, p := range gone {
		delete(s.here, p.Index)
	}
	for _, p := range came {
		s.here[p.Index] = p
	}
	s.looked = ports
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
		s.clear(wanted, all, orphans)
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
	named := make([]*link.Port, 0, len(due)+roundPorts)
	for index := range due {
		if p := s.here[index]; p != nil {
			named = append(named, p)
		}
	}
	if round {
		named = append(named, s.inTurn(ports, wanted)...)
	}
	if all {
		named = ports
	} else {
		slices.SortFunc(named, func(a, b *link.Port) int { return cmp.Compare(a.Seen, b.Seen) })
		named = slices.Compact(named)
	}
	var out []*link.Port
	began := s.now()
	for _, p := range named {
		r := s.ports[p.Seen]
		switch {
		case r != nil && r.contest.on() && began.Before(r.contest.until()) && r.form == wanted[p.Seen].FormOrNone():
			s.again(p, r.contest.until())
		case r != nil && r.retry.Failing() && !r.retry.Due():
			s.again(p, r.retry.Next())
		default:
			out = append(out, p)
		}
	}
	return out
}

// inTurn gives the next ports of the round. A round goes over the ports that have limits, the
// oldest first.
func (s *shaping) inTurn(ports []*link.Port, wanted map[uint64]*desired.Endpoint) (out []*link.Port) {
	first, _ := slices.BinarySearchFunc(ports, s.last+1, func(p *link.Port, seen uint64) int { return cmp.Compare(p.Seen, seen) })
	for _, p := range ports[first:] {
		if d := wanted[p.Seen]; d != nil && !d.Form().Empty() {
			if out, s.last = append(out, p), p.Seen; len(out) == roundPorts {
				return out
			}
		}
	}
	s.last = 0 // the next round begins
	return out
}

// again makes a port be looked at by a time.
func (s *shaping) again(p *link.Port, at time.Time) {
	s.mark(p.Index)
	s.look.By(at)
}

// clear deletes the IFBs of ports that are gone. If that fails, it is tried again, and all
// else goes on.
func (s *shaping) clear(wanted map[uint64]*desired.Endpoint, all bool, orphans map[int]struct{}) {
	sweeps := all || s.sweep.Due()
	if !sweeps && len(orphans) == 0 {
		return
	}
	keep := func(veth int) bool {
		p := s.here[veth]
		return p != nil && wanted[p.Seen] != nil && wanted[p.Seen].Wish.Egress != nil
	}
	var err error
	if sweeps {
		var n int
		if n, err = s.plane.Sweep(keep); n > 0 {
			s.log.Debug("deleted IFBs without a port", "count", n)
		}
	} else {
		var left []int
		for veth := range orphans {
			if !keep(veth) {
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

// settle repairs a port. If that fails, it notes why.
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
	undone := errors.As(err, new(undoneError))
	if err != nil && !undone && another(r.err, err) {
		s.log.Error("port cannot be shaped; trying again until it can", "veth", p.Name, "error", err)
	}
	r.err = err
	if err == nil || undone || errors.As(err, new(ConflictError)) {
		r.retry.Done() // repair has it read again, or the kernel tells when the conflict is gone
		return
	}
	r.retry.Begin()
	r.retry.Failed()
	s.again(p, r.retry.Next())
}
