package agent

import (
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

// state is what the last turn came to. It does not change.
type state struct {
	want     *State
	errs     map[endpoint.Key]error // why the kernel could not be brought to it
	unread   map[endpoint.Key]bool  // limits that were changed since they were read
	policing *policyState           // nil while Docker has not answered
	guarding guard.Report
	guardErr error
	// keeping is what keeps packets as they were judged.
	keeping string
	// admission is what holds of it, "" while nothing was written.
	admission string
	contests  []string // findings about other programs
	ground    []string // findings about the bridges' ports
	unknown   []link.Port
}

// publish adds what is known of the kernel, and hands the state to whoever reads it.
func (l *Loop) publish(s *state) {
	s.errs, s.unread = map[endpoint.Key]error{}, map[endpoint.Key]bool{}
	for _, d := range s.want.Desires {
		if d.Port == nil || d.Unmanaged != "" {
			continue
		}
		if err := l.shaping.fault(d.Port.Seen); err != nil {
			s.errs[d.Key] = err
		}
		if l.shaping.unread(d.Port) {
			s.unread[d.Key] = true
		}
	}
	s.guarding, s.guardErr, s.keeping, s.admission = l.guarding.report, l.guarding.err, l.guarding.keeping(), l.guarding.admission
	s.contests = nil
	for _, c := range l.contentions() {
		if c.on() && len(s.contests) < maxFindings {
			s.contests = append(s.contests, c.finding())
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

// Admission is what holds of it since the last pass.
func (l *Loop) Admission() string {
	if s := l.state.Load(); s != nil {
		return s.admission
	}
	return ""
}
