package agent

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"netguard/agent/endpoint"
	"netguard/agent/observe"
	"netguard/agent/pace"
	"netguard/shaper"
)

// told is what was logged last: there is one line each time that it changes.
type told struct {
	log     *slog.Logger
	last    map[endpoint.Key]*tale
	round   uint64
	ground  []string // about ports of bridges
	missing bool     // endpoints that Docker does not list
}

// tale is what was logged last about an endpoint.
type tale struct {
	of    *desire
	text  string
	round uint64
}

// pass logs what a pass came to.
func (t *told) pass(s *state) {
	for _, f := range s.ground {
		if !slices.Contains(t.ground, f) {
			t.log.Warn("ports of bridges", "finding", f)
		}
	}
	t.ground = s.ground
	t.round++
	for _, d := range s.want.Desires {
		was := t.last[d.Key]
		if was == nil {
			was = &tale{}
			t.last[d.Key] = was
		}
		if was.round = t.round; was.of == d {
			continue
		}
		was.of = d
		now := d.summary()
		if was.text == now {
			continue
		}
		was.text = now
		at := t.log.With("container", d.Container.Name, "network", d.Network.Name)
		if faults := d.faults(); len(faults) > 0 {
			at.Warn("endpoint is not as declared", "ingress", describe(d.limits.Limit[shaper.Ingress]),
				"egress", describe(d.limits.Limit[shaper.Egress]), "faults", strings.Join(faults, "; "))
			continue
		}
		if d.Port != nil {
			at.Info("endpoint", "veth", d.Port.Name, "ingress", describe(d.limits.Limit[shaper.Ingress]),
				"egress", describe(d.limits.Limit[shaper.Egress]))
		}
	}
	if len(t.last) > len(s.want.Desires) {
		maps.DeleteFunc(t.last, func(_ endpoint.Key, was *tale) bool { return was.round != t.round })
	}
}

// unlisted logs that Docker does not list endpoints for long, and gives since when it does
// not list the first one; zero where it lists all.
func (t *told) unlisted(want *State) (first time.Time) {
	for _, since := range want.Unlisted {
		first = pace.Soonest(since, first)
	}
	long := !first.IsZero() && want.Now.Sub(first) >= observe.LackingFor
	if long && !t.missing {
		t.log.Warn("docker does not list endpoints whose ports are there; what is enforced for them stays", "endpoints", MissingLong(want.Unlisted, want.Now))
	}
	t.missing = long
	return first
}
