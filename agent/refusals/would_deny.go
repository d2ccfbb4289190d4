package refusals

import (
	"log/slog"
	"maps"
	"strings"
	"time"

	"netguard/agent/control"
)

const (
	// wouldEvery is how often a flow has a line, at most.
	wouldEvery = 10 * time.Minute
	// maxWould bounds how many flows are remembered, and wouldLines how many lines
	// there are within alertEvery.
	maxWould   = 4096
	wouldLines = 30
)

// wouldDeny logs in monitor mode what policies would refuse, so that people can read it later.
// Each flow has a line once in a while. wouldDeny is part of the goroutine of denials.
type wouldDeny struct {
	log    *slog.Logger
	told   map[wouldKey]time.Time
	since  time.Time // lines are counted
	lines  int
	hidden uint64 // packets without a line since the line before
}

// wouldKey is a flow without what is new in each of its connections.
type wouldKey struct{ container, network, direction, from, to, service string }

func (w *wouldDeny) tell(now time.Time, e control.Event) {
	if e.Container == "" {
		return // an agent that begins does not know the containers yet
	}
	key := wouldKey{e.ID, e.Network, e.Direction, addressOf(e.From), addressOf(e.To), e.Service}
	if at, ok := w.told[key]; ok && now.Sub(at) < wouldEvery {
		return // status counts it
	}
	if now.Sub(w.since) >= alertEvery {
		w.since, w.lines = now, 0
	}
	if len(w.told) >= maxWould {
		maps.DeleteFunc(w.told, func(_ wouldKey, at time.Time) bool { return now.Sub(at) >= wouldEvery })
	}
	if w.lines >= wouldLines || len(w.told) >= maxWould {
		w.hidden += e.Count
		return
	}
	if w.told == nil {
		w.told = map[wouldKey]time.Time{}
	}
	w.told[key] = now
	w.lines++
	attrs := []any{"container", e.Container, "network", e.Network, "from", nameOf(e.From), "to", nameOf(e.To),
		"service", e.Service, "direction", e.Direction, "policies", strings.Join(e.Policies, ","), "packets", e.Count}
	if len(e.Published) > 0 {
		attrs = append(attrs, "published", strings.Join(e.Published, ","))
	}
	if w.hidden > 0 {
		attrs = append(attrs, "not_shown", w.hidden)
		w.hidden = 0
	}
	w.log.Warn("connection would be denied", attrs...)
}

func addressOf(p *control.Peer) string {
	if p == nil {
		return ""
	}
	return p.Address
}

// nameOf is an end for a log.
func nameOf(p *control.Peer) string {
	switch {
	case p == nil:
		return ""
	case p.Container != "":
		return p.Container
	case p.Entity == "host":
		return "host"
	}
	return p.Address
}
