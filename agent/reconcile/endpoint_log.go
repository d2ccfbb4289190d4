package reconcile

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/agent/observe"
	"netguard/agent/pace"
	"netguard/internal/changed"
	"netguard/shaper"
)

// endpointLog logs what became of endpoints and bridges, one line each time that it changes.
type endpointLog struct {
	log     *slog.Logger
	seen    []*desired.Endpoint
	last    map[endpoint.Key]string // what was logged last about each
	bridges []string                // about ports of bridges
	missing bool                    // endpoints that Docker does not list
}

// pass logs what a pass came to.
func (t *endpointLog) pass(s *State) {
	for _, f := range s.Bridges {
		if !slices.Contains(t.bridges, f) {
			t.log.Warn("ports of bridges", "finding", f)
		}
	}
	t.bridges = s.Bridges
	gone, came := changed.Between(t.seen, s.Want.Endpoints)
	t.seen = s.Want.Endpoints
	over := map[endpoint.Key]bool{}
	for _, d := range gone {
		over[d.Key] = true
	}
	for _, d := range came {
		delete(over, d.Key)
		now := d.Summary()
		if t.last[d.Key] == now {
			continue
		}
		t.last[d.Key] = now
		at := t.log.With("container", d.Container.Name, "network", d.Network.Name)
		if faults := d.Faults(); len(faults) > 0 {
			at.Warn("endpoint is not as declared", "ingress", desired.Describe(d.Limits.Limit[shaper.Ingress]),
				"egress", desired.Describe(d.Limits.Limit[shaper.Egress]), "faults", strings.Join(faults, "; "))
			continue
		}
		if d.Port != nil {
			at.Info("endpoint", "veth", d.Port.Name, "ingress", desired.Describe(d.Limits.Limit[shaper.Ingress]),
				"egress", desired.Describe(d.Limits.Limit[shaper.Egress]))
		}
	}
	for key := range over {
		delete(t.last, key)
	}
}

// unlisted logs that Docker does not list endpoints for long, and gives since when it does
// not list the first one; zero where it lists all.
func (t *endpointLog) unlisted(want *desired.State) (first time.Time) {
	for _, since := range want.Unlisted {
		first = pace.Soonest(since, first)
	}
	long := !first.IsZero() && want.Now.Sub(first) >= observe.LackingFor
	if long && !t.missing {
		t.log.Warn("docker does not list endpoints whose ports are there; what is enforced for them stays", "endpoints", desired.MissingLong(want.Unlisted, want.Now))
	}
	t.missing = long
	return first
}
