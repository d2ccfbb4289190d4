package reconcile

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/agent/pace"
	"netguard/internal/changed"
	"netguard/shaper"
)

const (
	// roundEvery is how often some ports are compared with the kernel although it reported no
	// change. roundPorts is how many ports: so the cost is the same on any host.
	roundEvery = 10 * time.Second
	roundPorts = 16
)

// shaping brings the limits of ports to the wanted state, and keeps them there. It is part of
// the loop's goroutine.
type shaping struct {
	log   *slog.Logger
	plane ShapePlane
	// gone tells whether a link is not there any more.
	gone func(index int) bool
	now  func() time.Time

	ports     map[uint64]*shaped           // by link.Port.Seen
	endpoints []*desired.Endpoint          // at the last apply
	links     []*link.Port                 // likewise
	looked    []*link.Port                 // at the last look
	here      map[int]*link.Port           // the ports in looked, by ifindex
	wanted    map[uint64]*desired.Endpoint // the managed endpoints with a port, by link.Port.Seen
	version   int                          // counts changes that may decide an admission
	changes   int                          // counts changes that may decide State.Faults or Unread
	ifbs      map[int]int                  // the veths behind IFBs, by their ifindexes
	all       bool                         // every port is to be compared with the kernel
	contested map[uint64]bool              // ports about which there is contention, by link.Port.Seen
	due       map[int]struct{}             // the ports to compare at the next look, by ifindex
	orphans   map[int]struct{}             // veths that are gone, and may have left an IFB
	sweep     pace.Pace                    // for IFBs without a port, while some may be left
	look      pace.Pace                    // at what is due
	round     pace.Pace                    // at the next ports without any reason
	last      uint64                       // the port that was looked at last in this round
	begun     bool                         // apply was called; before, it is unknown whose the ports are
}

// shaped is what is known of one port.
type shaped struct {
	index   int          // of the veth
	known   bool         // form is in the kernel, or is tried again until it is
	form    desired.Form // what was written last
	ifb     int          // the IFB at the last look
	leads   bool         // there may be an IFB
	tried   bool         // a first try failed half-way, so that the port may have something
	contest contention
	// err is why the limits are not in the kernel. retry says when they are tried again.
	err   error
	retry pace.Pace
}

func newShaping(log *slog.Logger, plane ShapePlane, gone func(int) bool, now func() time.Time) *shaping {
	s := &shaping{log: log, plane: plane, gone: gone, now: now}
	// The kernel's reports of one moment, also of netguard's own changes, lead to one look.
	// Reading takes at most a tenth of the time.
	s.look = pace.Pace{Gather: verifySoon, Share: verifyShare, MinRetry: minFailing, MaxRetry: maxFailing, Clock: now}
	s.sweep = pace.Pace{MinRetry: minFailing, MaxRetry: maxFailing, Clock: now}
	s.sweep.Begin()
	s.round = pace.Pace{Every: roundEvery, Clock: now}
	s.anew()
	return s
}

// anew forgets all that is known.
func (s *shaping) anew() {
	s.ports, s.contested, s.ifbs, s.all = map[uint64]*shaped{}, map[uint64]bool{}, map[int]int{}, true
	s.looked, s.here = nil, map[int]*link.Port{}
	s.due, s.orphans, s.endpoints, s.links, s.wanted = map[int]struct{}{}, map[int]struct{}{}, nil, nil, map[uint64]*desired.Endpoint{}
	s.changes++
	s.look.Now()
}

// next is when there is something to do; zero before the first apply.
func (s *shaping) next() time.Time {
	if !s.begun {
		return time.Time{}
	}
	return pace.Soonest(s.look.Next(), s.round.Next())
}

// hear marks what the kernel reported for the next look.
func (s *shaping) hear(h link.Hint) {
	if !h.Full && len(h.Links) == 0 {
		return
	}
	s.changes++
	s.look.Wake()
	if s.all = s.all || h.Full; s.all {
		return
	}
	for index := range h.Links {
		s.mark(index)
		if veth, ok := s.ifbs[index]; ok {
			s.mark(veth)
		}
	}
	if len(s.due) > maxDue {
		s.all, s.due = true, map[int]struct{}{}
	}
}

func (s *shaping) mark(index int) { s.due[index] = struct{}{} }

// inForce tells whether the wanted limits are in the kernel, as far as is known.
func (s *shaping) inForce(d *desired.Endpoint) bool {
	r := s.ports[d.Port.Seen]
	return r != nil && r.known && r.err == nil && r.form == d.Form()
}

// fault is why the wanted limits of a port are not in the kernel; nil if none is known.
func (s *shaping) fault(seen uint64) error {
	if r := s.ports[seen]; r != nil {
		return r.err
	}
	return nil
}

// contests gives the contentions about limits, that of the oldest port first.
func (s *shaping) contests() (out []*contention) {
	for _, seen := range slices.Sorted(maps.Keys(s.contested)) {
		out = append(out, &s.ports[seen].contest)
	}
	return out
}

// record gives what is known of a port. It makes the record if there is none.
func (s *shaping) record(p *link.Port) *shaped {
	r := s.ports[p.Seen]
	if r == nil {
		r = &shaped{index: p.Index, retry: pace.Pace{MinRetry: minFailing, MaxRetry: maxFailing, Clock: s.now}}
		s.ports[p.Seen] = r
	}
	return r
}

// apply writes the limits that changed, and compares with the kernel what is due. Ports up to
// old (link.Port.Seen) were there at the start: an earlier agent may have given them limits.
func (s *shaping) apply(endpoints []*desired.Endpoint, ports []*link.Port, old uint64) {
	if s.begun && slices.Equal(s.endpoints, endpoints) && slices.Equal(s.links, ports) {
		s.verify(ports, s.wanted) // all else that there is to do has a due time
		return
	}
	s.changes++
	gone, came := changed.Between(s.endpoints, endpoints)
	left, arrived := changed.Between(s.links, ports)
	s.begun, s.endpoints, s.links = true, endpoints, ports
	for _, d := range came {
		if d.Port == nil || d.Unmanaged != "" {
			continue
		}
		s.wanted[d.Port.Seen] = d
		r, want := s.ports[d.Port.Seen], d.Form()
		known := r != nil && r.known
		switch {
		case known && r.form == want:
		case !known && d.Port.Seen > old && (r == nil || r.err == nil && !r.tried):
			// Nobody can have put anything on a port this new: there is
			// no need to read, and every reason to be quick.
			s.quick(d, want)
		default:
			s.mark(d.Port.Index)
			s.look.Now()
		}
	}
	for _, p := range left {
		r := s.ports[p.Seen]
		if r == nil || slices.ContainsFunc(arrived, func(q *link.Port) bool { return q.Seen == p.Seen }) {
			continue
		}
		delete(s.ports, p.Seen)
		delete(s.contested, p.Seen)
		delete(s.ifbs, r.ifb)
		if r.leads {
			s.orphans[r.index] = struct{}{}
			s.look.Wake()
		}
	}
	for _, d := range gone {
		if d.Port == nil || s.wanted[d.Port.Seen] != d {
			continue
		}
		delete(s.wanted, d.Port.Seen)
		if r := s.ports[d.Port.Seen]; r != nil && r.known && !r.form.Empty() { // the port stays
			s.mark(d.Port.Index)
			s.look.Now()
		}
	}
	s.verify(ports, s.wanted)
}

// quick shapes a port that has nothing yet.
func (s *shaping) quick(d *desired.Endpoint, want desired.Form) {
	r := s.record(d.Port)
	if want.Empty() {
		r.known, r.form = true, want
		return
	}
	r.leads = d.Wish.Egress != nil
	s.mark(d.Port.Index) // it is read back
	if err := s.plane.Apply(d.Port.Index, d.Port.Name, shaper.Diff(shaper.Endpoint{}, d.Wish)); err != nil {
		r.tried = true
		s.look.Now() // the port has something now, or is gone
		return
	}
	r.known, r.form = true, want
	s.look.Wake()
}
