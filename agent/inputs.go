package agent

import (
	"maps"
	"slices"
	"time"

	"netguard/agent/config"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/agent/pace"
	"netguard/netpolicy"
)

// hintGather is how long what the kernel told of ports that are known waits for more: of
// each of its own changes netguard hears as well.
const hintGather = 10 * time.Millisecond

// inputs are what a pass works from, beside what it reads of the kernel. What it points to
// does not change.
type inputs struct {
	seen    observe.Snapshot
	ports   []link.Port
	devices []link.Device
	bridges map[string]int
	cfg     *config.Config
	catalog *netpolicy.Catalog
}

func (l *loop) inputs(seen observe.Snapshot) inputs {
	return inputs{seen, l.links.Snapshot(), l.links.Devices(), l.links.Bridges(), l.settings.config(), l.policies.now.Load()}
}

// same tells whether a pass would work from the same.
func (i *inputs) same(o *inputs) bool {
	return i.cfg == o.cfg && i.catalog == o.catalog && i.seen.Same(&o.seen) && slices.Equal(i.devices, o.devices) && maps.Equal(i.bridges, o.bridges) &&
		link.Unchanged(i.ports, o.ports)
}

// recheck is when a pass is due because time alone decides something: what Docker
// lacks, and ports that are nobody's yet.
func (l *loop) recheck(now time.Time, s *state, ports []link.Port) time.Time {
	if len(s.held) > 0 {
		return now.Add(observe.LackingFor / 2)
	}
	var at time.Time
	for i := len(ports) - 1; i >= 0; i-- { // the youngest are the last
		ripe := ports[i].Since.Add(patience)
		if !now.Before(ripe) {
			break
		}
		at = pace.Soonest(ripe, at)
	}
	return at
}
