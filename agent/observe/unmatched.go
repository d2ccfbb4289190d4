package observe

import (
	"slices"
	"time"

	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/agent/pace"
)

const (
	minAsk = 100 * time.Millisecond
	maxAsk = 30 * time.Second
)

// unmatched are the ports that no endpoint of Docker's belongs to, and the endpoints that
// have no port. They are part of the observer's goroutine. The zero value is ready.
type unmatched struct {
	asked    map[unmatchedOne]asked
	networks map[string]*matched // by ID
	// What was looked at last.
	ports    []*link.Port
	byBridge map[string][]*link.Port
}

// unmatchedOne is a port, by link.Port.Seen, or an endpoint.
type unmatchedOne struct {
	seen               uint64
	network, container string
}

// asked says when Docker is asked again.
type asked struct {
	at   time.Time
	wait time.Duration
}

// matched is a network as it was looked at last, and what did not fit.
type matched struct {
	network docker.Network
	ports   []*link.Port
	fresh   uint64
	misses  []unmatchedOne
	later   bool // a port came after the network was read
}

// look names the networks to read: the kernel often reports a port before Docker reports its
// endpoint, and Docker may never do so. A network is read at once if a port came to its bridge
// after the last reading. A network whose endpoints do not fit the ports is read again and
// again, with growing pauses. The time is when there is more to ask, zero for never.
func (u *unmatched) look(known *Snapshot, ports []*link.Port, now time.Time) (docker.Hint, time.Time) {
	h := docker.Hint{Networks: map[string]struct{}{}}
	if u.byBridge == nil || !slices.Equal(ports, u.ports) {
		u.ports, u.byBridge = ports, map[string][]*link.Port{}
		for _, p := range ports {
			u.byBridge[p.MasterName] = append(u.byBridge[p.MasterName], p)
		}
	}
	still, networks := map[unmatchedOne]asked{}, make(map[string]*matched, len(known.View.Networks))
	var next time.Time
	for id, n := range known.View.Networks {
		if n.Bridge == "" {
			continue
		}
		m := u.networks[id]
		if m == nil || m.fresh != known.Fresh[id] || !m.network.SameEndpoints(&n) || !slices.Equal(m.ports, u.byBridge[n.Bridge]) {
			m = match(id, n, u.byBridge[n.Bridge], known.Fresh[id])
		}
		if networks[id] = m; m.later {
			h.Networks[id] = struct{}{}
		}
		for _, who := range m.misses {
			a, met := u.asked[who]
			switch {
			case !met:
				a = asked{now.Add(minAsk), minAsk}
				if who.seen != 0 {
					// It has just got into its namespace. A build step begins in a
					// moment, and no event tells of it.
					h.Networks[id] = struct{}{}
				}
			case !now.Before(a.at):
				h.Networks[id] = struct{}{}
				a.wait = min(2*a.wait, maxAsk)
				a.at = now.Add(a.wait)
			}
			still[who] = a
			next = pace.Soonest(a.at, next)
		}
	}
	u.asked, u.networks = still, networks
	return h, next
}

// match compares the ports of a bridge with the endpoints of its network.
func match(id string, n docker.Network, ports []*link.Port, fresh uint64) *matched {
	m := &matched{network: n, ports: ports, fresh: fresh}
	macs := make(map[string]bool, len(n.Endpoints))
	for _, a := range n.Endpoints {
		macs[string(a.MAC)] = true
	}
	here := make(map[string]bool, len(ports))
	for _, p := range ports {
		here[string(p.PeerMAC)] = true
		m.later = m.later || p.Seen > fresh
		if p.NSID >= 0 && p.PeerMAC != nil && !macs[string(p.PeerMAC)] {
			m.misses = append(m.misses, unmatchedOne{seen: p.Seen})
		}
	}
	for _, a := range n.Endpoints {
		if a.MAC != nil && !here[string(a.MAC)] {
			m.misses = append(m.misses, unmatchedOne{network: id, container: a.ID})
		}
	}
	return m
}

// unknown tells whether a bridge that is of no network that is known had its first
// port since everything was read. Docker is asked once about each: it knows a
// network before the network has ports.
func unknown(known Snapshot, ports []*link.Port) bool {
	if !known.Complete {
		return false
	}
	mine := known.View.Bridges()
	for _, p := range ports {
		if !known.others[p.Master] && !mine[p.MasterName] {
			return true
		}
	}
	return false
}

// others gives the bridges of ports that are no network's.
func others(v docker.View, ports []*link.Port) map[int]bool {
	mine, out := v.Bridges(), map[int]bool{}
	for _, p := range ports {
		if !mine[p.MasterName] {
			out[p.Master] = true
		}
	}
	return out
}
