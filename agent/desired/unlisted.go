package desired

import (
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/observe"
)

// unlisted keeps the endpoints that Docker does not list although their ports are there.
type unlisted struct {
	last  []*endpoint.Endpoint // those of the last state that have a port
	since map[endpoint.Key]time.Time
}

// add gives a view with these endpoints added, and since when Docker does not list each.
func (u *unlisted) add(v docker.View, ports []*link.Port, now time.Time) (docker.View, map[endpoint.Key]time.Time) {
	v, keys := endpoint.Hold(v, u.last, ports)
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

// joined notes the endpoints of a state.
func (u *unlisted) joined(endpoints []*endpoint.Endpoint) {
	u.last = u.last[:0]
	for _, e := range endpoints {
		if e.Port != nil {
			u.last = append(u.last, e)
		}
	}
}

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
