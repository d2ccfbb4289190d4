package reconcile

import (
	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

// State is what the last turn came to. It does not change.
type State struct {
	Want     *desired.State
	Faults   map[endpoint.Key]error // why the kernel could not be brought to it
	Unread   map[endpoint.Key]bool  // limits that were changed since they were read
	Policies *PolicyState           // nil while Docker has not answered
	Guard    guard.Report
	GuardErr error
	// Keeping is what keeps packets as they were judged.
	Keeping string
	// Admission is which admission is in force, "" while nothing was written.
	Admission   string
	Contentions []string // findings about other programs
	Bridges     []string // findings about the bridges' ports
	Unknown     []*link.Port
}

// publish adds what is known of the kernel, and hands the state to whoever reads it.
func (l *Loop) publish(s *State) {
	s.Faults, s.Unread = map[endpoint.Key]error{}, map[endpoint.Key]bool{}
	for _, d := range s.Want.Endpoints {
		if d.Port == nil || d.Unmanaged != "" {
			continue
		}
		if err := l.shaping.fault(d.Port.Seen); err != nil {
			s.Faults[d.Key] = err
		}
		if l.shaping.unread(d.Port) {
			s.Unread[d.Key] = true
		}
	}
	s.Guard, s.GuardErr, s.Keeping, s.Admission = l.guarding.report, l.guarding.err, l.guarding.keeping(), l.guarding.admission
	s.Contentions = nil
	for _, c := range l.contentions() {
		if c.on() && len(s.Contentions) < maxFindings {
			s.Contentions = append(s.Contentions, c.finding())
		}
	}
	l.state.Store(s)
}

// maxFindings bounds the findings about contention: one is enough to look for who it is.
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

// Admission is which admission is in force since the last pass.
func (l *Loop) Admission() string {
	if s := l.state.Load(); s != nil {
		return s.Admission
	}
	return ""
}
