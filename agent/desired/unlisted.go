package desired

import (
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/internal/changed"
)

// unlisted keeps the endpoints that Docker does not list although their ports are there.
type unlisted struct {
	last  []*endpoint.Endpoint // those of the last state
	view  docker.View          // that they are of
	since map[endpoint.Key]time.Time
}

// add gives a view with these endpoints added, and since when Docker does not list each.
func (u *unlisted) add(v docker.View, ports []*link.Port, now time.Time) (docker.View, map[endpoint.Key]time.Time) {
	if changed.Identical(u.view.Containers, v.Containers) && changed.Identical(u.view.Networks, v.Networks) {
		return v, u.since
	}
	v, keys := endpoint.Hold(v, u.view, u.last, ports)
	u.view = v
	was := u.since
	u.since = make(map[endpoint.Key]time.Time, len(keys))
	for _, key := range keys {
		since, known := was[key]
		if !known {
			since = now
		}
		u.since[key] = since
	}
	return v, u.since
}

// joined notes the endpoints of a state, which are those of the last view that add gave.
func (u *unlisted) joined(endpoints []*endpoint.Endpoint) { u.last = endpoints }

// MissingLong counts the endpoints that Docker has not listed for longer than a container
// takes to stop.
func MissingLong(unlisted map[endpoint.Key]time.Time, now time.Time) (n int) {
	for _, since := range unlisted {
		if now.Sub(since) >= observe.LackingFor {
			n++
		}
	}
	return n
}
