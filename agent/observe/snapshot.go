package observe

import (
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/internal/changed"
)

// Snapshot is what is known of the engine. It does not change after it was handed out.
type Snapshot struct {
	View      docker.View
	Fresh     map[string]uint64 // see endpoint.Observation
	Sandboxes map[string]endpoint.Sandbox
	// Old is how far ports had been seen (link.Port.Seen) before the first reading.
	Old      uint64
	Complete bool // everything was read at least once
	Reads    int  // how often networks were read
	Err      error

	At     time.Time // of the last reading that succeeded
	Asking time.Time // since when an answer is waited for; zero if none is
	// others are the bridges, by ifindex, that had ports when everything was
	// read last, and are no network's.
	others map[int]bool
}

// Same tells whether whoever acts on one snapshot would do the same on the other.
func (s *Snapshot) Same(o *Snapshot) bool {
	return s.Complete == o.Complete && s.Reads == o.Reads && s.Old == o.Old && sameError(s.Err, o.Err) &&
		s.View.Version == o.View.Version && s.View.DataPort == o.View.DataPort &&
		changed.Identical(s.View.Containers, o.View.Containers) && changed.Identical(s.View.Networks, o.View.Networks) &&
		changed.Same(s.Fresh, o.Fresh) && changed.Same(s.Sandboxes, o.Sandboxes)
}

func sameError(a, b error) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error())
}
