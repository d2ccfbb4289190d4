package observe

import (
	"maps"
	"slices"
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/internal/changed"
)

// Snapshot is what is known of Docker and of the kernel's links. It does not change after it
// was handed out. What Current returns has no Links, Joined and Unlisted.
type Snapshot struct {
	// View is what Docker lists, and the endpoints that it does not list although their ports
	// are there.
	View  docker.View
	Links link.View
	// Joined are the endpoints, with their ports. An endpoint that did not change keeps its
	// pointer.
	Joined []*endpoint.Endpoint
	// Unlisted are the endpoints that Docker does not list, and since when.
	Unlisted  map[endpoint.Key]time.Time
	Fresh     map[string]uint64 // see endpoint.Observation
	Sandboxes map[string]endpoint.Sandbox
	// Old is the newest port (link.Port.Seen) before Docker was first read.
	Old      uint64
	Complete bool // everything was read at least once
	Reads    int  // counts full readings, and readings where a network came or went
	Err      error

	At     time.Time // of the last reading that succeeded
	Asking time.Time // since when an answer is waited for; zero if none is
	// others are the bridges, by ifindex, that belong to no network and had ports when
	// everything was last read.
	others map[int]bool
}

// Same tells whether both snapshots lead to the same wanted state.
func (s *Snapshot) Same(o *Snapshot) bool {
	return s.SameEndpoints(o) && slices.Equal(s.View.Containers, o.View.Containers) && changed.Identical(s.View.Networks, o.View.Networks) &&
		changed.Same(s.Fresh, o.Fresh) && changed.Same(s.Sandboxes, o.Sandboxes)
}

// SameEndpoints tells whether both have the same endpoints, links and networks. They may still
// differ in the states of containers, and in what only decides whose the ports are (such as
// Fresh and Sandboxes).
func (s *Snapshot) SameEndpoints(o *Snapshot) bool {
	return s.Complete == o.Complete && s.Reads == o.Reads && s.Old == o.Old && sameError(s.Err, o.Err) &&
		s.View.Version == o.View.Version && s.View.DataPort == o.View.DataPort &&
		slices.Equal(s.Joined, o.Joined) && s.Links.Same(&o.Links) &&
		maps.EqualFunc(s.View.Networks, o.View.Networks, func(x, y docker.Network) bool { return x.Same(&y) })
}

func sameError(a, b error) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error())
}

// MissingLong counts the endpoints that Docker has not listed for longer than a container
// takes to stop.
func (s *Snapshot) MissingLong(now time.Time) (n int) {
	for _, since := range s.Unlisted {
		if now.Sub(since) >= LackingFor {
			n++
		}
	}
	return n
}
