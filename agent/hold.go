package agent

import (
	"fmt"
	"log/slog"
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/agent/pace"
)

// holder keeps what Docker does not list and the kernel has. It is part of the
// loop's goroutine.
type holder struct {
	log  *slog.Logger
	last []*endpoint.Endpoint // of the last pass, those that have a port
	// held are those that were kept in it, since when.
	held map[endpoint.Key]time.Time
	told bool
	tell func(since time.Time) // since when some are, zero for none
}

// view gives what Docker lists, and what it should.
func (h *holder) view(v docker.View, ports []link.Port) docker.View {
	v, keys := endpoint.Hold(v, h.last, ports)
	was, now := h.held, time.Now()
	h.held = make(map[endpoint.Key]time.Time, len(keys))
	long := 0
	var first time.Time
	for _, key := range keys {
		since, known := was[key]
		if !known {
			since = now
		}
		first = pace.Soonest(since, first)
		if h.held[key] = since; now.Sub(since) >= observe.LackingFor {
			long++
		}
	}
	if long > 0 && !h.told {
		h.log.Warn("docker does not list endpoints whose ports are there; what is enforced for them stays", "endpoints", long)
	}
	h.told = long > 0
	h.tell(first)
	return v
}

// joined notes what a pass found.
func (h *holder) joined(endpoints []*endpoint.Endpoint) {
	h.last = h.last[:0]
	for _, e := range endpoints {
		if e.Port != nil {
			h.last = append(h.last, e)
		}
	}
}

// heldFinding says how many are held, "" if none for long.
func heldFinding(held map[endpoint.Key]time.Time, now time.Time) string {
	n := 0
	for _, since := range held {
		if now.Sub(since) >= observe.LackingFor {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("docker does not list %d of the endpoints below though their ports are there: what is enforced for them stays until their ports go; if docker network inspect does not name them, restart dockerd", n)
}
