package observe

import (
	"slices"
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/pace"
	"netguard/internal/changed"
)

// joiner joins what Docker lists with the ports that the kernel has. It belongs to the
// goroutine that calls Take.
type joiner struct {
	bound endpoint.Bindings
	last  []*endpoint.Endpoint // of the last snapshot
	// listed is the last view that Docker gave. view also has the endpoints that Docker does
	// not list although their ports are there. unlisted says since when each is not listed.
	listed, view docker.View
	ports        []*link.Port
	unlisted     map[endpoint.Key]time.Time
}

// join completes a snapshot, which has only Docker's view and the links so far.
func (j *joiner) join(s *Snapshot, now time.Time) {
	j.hold(s.View, s.Links.Ports, now)
	s.View.Containers, s.View.Networks, s.Unlisted = j.view.Containers, j.view.Networks, j.unlisted
	s.Joined = endpoint.Join(endpoint.Observation{View: s.View, Ports: s.Links.Ports, Fresh: s.Fresh, Sandboxes: s.Sandboxes, Now: now}, j.bound)
	j.last = s.Joined
}

// hold finds the endpoints that Docker does not list.
func (j *joiner) hold(v docker.View, ports []*link.Port, now time.Time) {
	same := slices.Equal(j.listed.Containers, v.Containers) && changed.Identical(j.listed.Networks, v.Networks)
	if same && (len(j.unlisted) == 0 || slices.Equal(j.ports, ports)) {
		return
	}
	was := j.unlisted
	var keys []endpoint.Key
	j.view, keys = endpoint.Hold(v, j.view, j.last, ports)
	j.listed, j.ports, j.unlisted = v, ports, make(map[endpoint.Key]time.Time, len(keys))
	for _, key := range keys {
		since, known := was[key]
		if !known {
			since = now
		}
		j.unlisted[key] = since
	}
}

// wanted is what Docker must be asked for, because the last snapshot lacks it.
type wanted struct {
	// contested are the containers whose MACs do not tell their ports.
	contested map[string]bool
	// lacks is since when Docker has not listed an endpoint whose port is there; zero if it
	// lists all.
	lacks time.Time
}

// wants gives what has to be asked after a snapshot.
func wants(s *Snapshot) wanted {
	w := wanted{contested: map[string]bool{}}
	for _, e := range s.Joined {
		if e.Contested {
			w.contested[e.Key.Container] = true
		}
	}
	for _, since := range s.Unlisted {
		w.lacks = pace.Soonest(since, w.lacks)
	}
	return w
}

// news tells whether more has to be asked than before.
func (w wanted) news(before wanted) bool {
	for id := range w.contested {
		if !before.contested[id] {
			return true
		}
	}
	return before.lacks.IsZero() && !w.lacks.IsZero()
}

// waiting names the contested containers that are not known to run, so that they are read again:
// only a running container can be asked for its namespace.
func (w wanted) waiting(v docker.View) docker.Hint {
	h := docker.Hint{Containers: map[string]struct{}{}}
	for id := range w.contested {
		if !v.Container(id).Running() {
			h.Containers[id] = struct{}{}
		}
	}
	return h
}

// relist is when to read everything again because Docker does not list an endpoint; zero if it
// lists all. The pause since the last time grows with the time that Docker has not listed it, and
// with the time that the last reading took: Docker may be right again at any moment, and tells
// nobody.
func (w wanted) relist(last time.Time, took time.Duration) time.Time {
	if w.lacks.IsZero() {
		return time.Time{}
	}
	at := w.lacks.Add(LackingFor)
	if !last.Before(at) {
		at = last.Add(max(minAgain, min(last.Sub(w.lacks)/2, maxAgain), againShare*took))
	}
	return at
}
