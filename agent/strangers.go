package agent

import (
	"time"

	"netguard/agent/docker"
	"netguard/agent/link"
)

const (
	minAsk = 100 * time.Millisecond
	maxAsk = 30 * time.Second
)

// strangers are the ports that no endpoint of Docker's belongs to, and the
// endpoints that have no port. They are part of the observer's goroutine.
type strangers map[stranger]asked

type stranger struct {
	seen               uint64 // link.Port.Seen, or
	network, container string
}

// asked says when Docker is asked again.
type asked struct {
	at   time.Time
	wait time.Duration
}

// networks names the networks that should be read for the sake of a port: netlink
// often knows before Docker tells, and Docker may never. Those on whose bridge a
// port came up after they were read, at once; those that did not fit their bridge's
// ports then, again and again. The time is when there is more to ask, zero for
// never.
func (s *strangers) networks(known observed, ports []link.Port, now time.Time) (docker.Hint, time.Time) {
	h := docker.Hint{Networks: map[string]struct{}{}}
	byBridge := map[string][]link.Port{}
	for _, p := range ports {
		byBridge[p.MasterName] = append(byBridge[p.MasterName], p)
	}
	still := strangers{}
	var next time.Time
	meet := func(who stranger, network string) {
		a, met := (*s)[who]
		switch {
		case !met:
			a = asked{now.Add(minAsk), minAsk}
			if who.seen != 0 {
				// It has just got into its namespace. A build step begins in a
				// moment, and no event tells of it.
				h.Networks[network] = struct{}{}
			}
		case !now.Before(a.at):
			h.Networks[network] = struct{}{}
			a.wait = min(2*a.wait, maxAsk)
			a.at = now.Add(a.wait)
		}
		still[who] = a
		next = earlier(a.at, next)
	}
	for id, n := range known.view.Networks {
		if n.Bridge == "" {
			continue
		}
		macs := make(map[string]bool, len(n.Endpoints))
		for _, a := range n.Endpoints {
			macs[string(a.MAC)] = true
		}
		here := make(map[string]bool, len(byBridge[n.Bridge]))
		for _, p := range byBridge[n.Bridge] {
			here[string(p.PeerMAC)] = true
			if p.Seen > known.fresh[id] {
				h.Networks[id] = struct{}{}
			}
			if p.NSID >= 0 && p.PeerMAC != nil && !macs[string(p.PeerMAC)] {
				meet(stranger{seen: p.Seen}, id)
			}
		}
		for container, a := range n.Endpoints {
			if a.MAC != nil && !here[string(a.MAC)] {
				meet(stranger{network: id, container: container}, id)
			}
		}
	}
	*s = still
	return h, next
}

// earlier is the earlier of two times of which the second may be zero.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// unknown tells whether a bridge that is of no network that is known had its first
// port since everything was read. Docker is asked once about each: it knows a
// network before the network has ports.
func unknown(known observed, ports []link.Port) bool {
	if !known.complete {
		return false
	}
	mine := known.view.Bridges()
	for _, p := range ports {
		if !known.others[p.Master] && !mine[p.MasterName] {
			return true
		}
	}
	return false
}

// others gives the bridges of ports that are no network's.
func others(v docker.View, ports []link.Port) map[int]bool {
	mine, out := v.Bridges(), map[int]bool{}
	for _, p := range ports {
		if !mine[p.MasterName] {
			out[p.Master] = true
		}
	}
	return out
}
