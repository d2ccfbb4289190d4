package reconcile

import (
	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

// State is what the last turn came to. It does not change.
type State struct {
	Want     *desired.State
	Faults   map[endpoint.Key]error // why the kernel could not be brought to it
	Unread   map[endpoint.Key]bool  // limits that were changed since they were read
	changes  int                    // shaping.changes when Faults and Unread were worked out
	Policies *PolicyState           // nil while Docker has not answered
	Guard    guard.Report
	GuardErr error
	// Keeping is what prevents the kernel from changing packets after they were judged.
	Keeping string
	// Admission is AdmissionClosed or AdmissionOpen; "" while nothing was written.
	Admission   string
	Contentions []string // findings about other programs
	Bridges     []string // findings about the bridges' ports
	Unknown     []*link.Port
}

// publish adds what is known of the kernel, and makes the state visible to readers.
func (l *Loop) publish(s *State) {
	if last := l.state.Load(); last != nil && last.changes == l.shaping.changes && netpolicy.Shared(last.Want.Endpoints, s.Want.Endpoints) {
		s.Faults, s.Unread = last.Faults, last.Unread
	} else {
		s.Faults, s.Unread = l.shaping.faults(s.Want.Endpoints)
	}
	s.changes = l.shaping.changes
	s.Guard, s.GuardErr, s.Keeping, s.Admission = l.guarding.report, l.guarding.err, l.guarding.keeping(), l.guarding.admission
	s.Contentions = nil
	for _, c := range l.contentions() {
		if c.on() && len(s.Contentions) < maxFindings {
			s.Contentions = append(s.Contentions, c.finding())
		}
	}
	l.state.Store(s)
}

// faults gives why limits are not in the kernel, and which may have changed since they were
// last read.
func (s *shaping) faults(endpoints []*desired.Endpoint) (faults map[endpoint.Key]error, unread map[endpoint.Key]bool) {
	faults, unread = map[endpoint.Key]error{}, map[endpoint.Key]bool{}
	for _, d := range endpoints {
		if d.Port == nil || d.Unmanaged != "" {
			continue
		}
		r := s.ports[d.Port.Seen]
		if r != nil && r.err != nil {
			faults[d.Key] = r.err
		}
		if _, due := s.due[d.Port.Index]; due || s.all || r == nil || !r.known {
			unread[d.Key] = true
		}
	}
	return faults, unread
}

// maxFindings bounds the findings about contention: one is enough to search for the program.
const maxFindings = 5

func (l *Loop) contentions() []*contention {
	return append([]*contention{&l.policing.contest, &l.policing.bridges.contest, &l.guarding.contest}, l.shaping.contests()...)
}

// contested tells whether there is contention about anything.
func (l *Loop) contested() bool {
	for _, c := range l.contentions() {
		if c.on() {
			return true
		}
	}
	return false
}

// Admission is AdmissionClosed or AdmissionOpen since the last pass; "" before the first.
func (l *Loop) Admission() string {
	if s := l.state.Load(); s != nil {
		return s.Admission
	}
	return ""
}
