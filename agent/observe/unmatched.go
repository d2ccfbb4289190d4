package observe

import (
	"net"
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

// unmatched keeps the ports that fit no endpoint of Docker's, and the endpoints that have no
// port. It is part of the observer's goroutine. The zero value is ready.
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

// matched is a network as it was at the last look, and what did not fit.
type matched struct {
	network docker.Network
	ports   []*link.Port
	misses  []unmatchedOne
	seen    uint64 // how far its ports were seen
}

// look names the networks to read: the kernel often reports a port before Docker reports its
// endpoint, and Docker may never do so. A network is read at once if a port came to its bridge
// after the last reading. A network whose endpoints do not fit the ports is read again and
// again, with growing pauses. The time is when the next network is due; zero for never.
func (u *unmatched) look(known *Snapshot, ports []*link.Port, now time.Time) (docker.Hint, time.Time) {
	h := docker.Hint{Networks: map[string]struct{}{}}
	if u.byBridge == nil || !slices.Equal(ports, u.ports) {
		u.ports, u.byBridge = ports, byBridge(ports)
	}
	still, networks := map[unmatchedOne]asked{}, make(map[string]*matched, len(known.View.Networks))
	var next time.Time
	for id, n := range known.View.Networks {
		if n.Bridge == "" {
			continue
		}
		m := u.networks[id]
		if m == nil || !m.network.SameEndpoints(&n) || !slices.Equal(m.ports, u.byBridge[n.Bridge]) {
			m = match(id, n, u.byBridge[n.Bridge])
		}
		if networks[id] = m; m.seen > known.Fresh[id] { // a port came after the network was read
			h.Networks[id] = struct{}{}
		}
		for _, who := range m.misses {
			a, met := u.asked[who]
			switch {
			case !met:
				a = asked{now.Add(minAsk), minAsk}
				if who.seen != 0 {
					// The port has just come into its namespace. It may be a build step's,
					// which begins in a moment and without any event.
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
func match(id string, n docker.Network, ports []*link.Port) *matched {
	m := &matched{network: n, ports: ports}
	macs := make(map[[8]byte]bool, len(n.Endpoints)) // true: a port has the MAC too
	for _, a := range n.Endpoints {
		if a.MAC != nil {
			macs[padded(a.MAC)] = false
		}
	}
	for _, p := range ports {
		m.seen = max(m.seen, p.Seen)
		if _, fits := macs[padded(p.PeerMAC)]; fits {
			macs[padded(p.PeerMAC)] = true
		} else if p.NSID >= 0 && p.PeerMAC != nil {
			m.misses = append(m.misses, unmatchedOne{seen: p.Seen})
		}
	}
	for _, a := range n.Endpoints {
		if a.MAC != nil && !macs[padded(a.MAC)] {
			m.misses = append(m.misses, unmatchedOne{network: id, container: a.ID})
		}
	}
	return m
}

// padded is a MAC as the key of a map. A veth has one of six bytes.
func padded(mac net.HardwareAddr) (key [8]byte) {
	copy(key[:], mac)
	return key
}

// unknown tells whether a bridge of no known network got its first port after everything was
// last read. Once is enough to ask Docker about a bridge: Docker knows a network before the
// network has ports.
func unknown(known Snapshot, ports map[string][]*link.Port) bool {
	if !known.Complete {
		return false
	}
	mine := known.View.Bridges()
	for bridge, some := range ports {
		if !mine[bridge] && !known.others[some[0].Master] {
			return true
		}
	}
	return false
}

// byBridge gives ports by the names of their bridges.
func byBridge(ports []*link.Port) map[string][]*link.Port {
	out := map[string][]*link.Port{}
	for _, p := range ports {
		out[p.MasterName] = append(out[p.MasterName], p)
	}
	return out
}

// others gives the bridges that have ports and belong to no network, by ifindex.
func others(v docker.View, ports []*link.Port) map[int]bool {
	mine, out := v.Bridges(), map[int]bool{}
	for _, p := range ports {
		if !mine[p.MasterName] {
			out[p.Master] = true
		}
	}
	return out
}
