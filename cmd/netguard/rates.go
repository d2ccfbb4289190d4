package main

import (
	"time"

	"netguard/agent/control"
)

// sample is a status and when it was read, by a clock that does not jump.
type sample struct {
	at     time.Time
	status control.Status
}

// port names what an endpoint's counters belong to: a new veth begins to count anew.
type port struct{ id, network, veth string }

func portOf(e control.Endpoint) port { return port{e.ID, e.Network, e.Veth} }

// flow is what an endpoint does, a second.
type flow struct {
	ingress, egress float64 // bits
	drops, denied   float64
}

// flows compares two samples. It leaves out an endpoint that is not in both, and one whose
// counters began anew in between.
func flows(before, after sample) map[port]flow {
	seconds := after.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return nil
	}
	was := make(map[port]control.Endpoint, len(before.status.Endpoints))
	for _, e := range before.status.Endpoints {
		was[portOf(e)] = e
	}
	out := make(map[port]flow, len(after.status.Endpoints))
	for _, now := range after.status.Endpoints {
		old, ok := was[portOf(now)]
		if !ok || now.State == control.Unmanaged {
			continue
		}
		grown := true
		rate := func(from, to uint64) float64 {
			grown = grown && to >= from
			return float64(to-from) / seconds
		}
		f := flow{
			ingress: 8 * rate(old.Ingress.Bytes, now.Ingress.Bytes),
			egress:  8 * rate(old.Egress.Bytes, now.Egress.Bytes),
			drops:   rate(old.Ingress.Drops+old.Egress.Drops, now.Ingress.Drops+now.Egress.Drops),
			denied:  rate(old.Denied, now.Denied),
		}
		if grown {
			out[portOf(now)] = f
		}
	}
	return out
}
