package reconcile

import (
	"log/slog"
	"slices"
	"strings"

	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/internal/changed"
	"netguard/shaper"
)

// endpointLog logs the state of endpoints and bridges, one line for each change.
type endpointLog struct {
	log     *slog.Logger
	seen    []*desired.Endpoint
	last    map[endpoint.Key]string // what was logged last about each
	bridges []string                // about ports of bridges
	missing bool                    // endpoints that Docker does not list
}

// pass logs what a pass came to.
func (t *endpointLog) pass(s *State) {
	t.unlisted(s.Want)
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

// unlisted logs, once, that Docker has not listed some endpoints for too long.
func (t *endpointLog) unlisted(want *desired.State) {
	n := want.Seen.MissingLong(want.Now)
	if n > 0 && !t.missing {
		t.log.Warn("docker does not list endpoints whose ports are there; what is enforced for them stays", "endpoints", n)
	}
	t.missing = n > 0
}
