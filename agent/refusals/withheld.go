package refusals

import (
	"log/slog"
	"time"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/agent/reconcile"
	"netguard/netpolicy/guard"
)

// withheldEvery is how often there is a line about a port that is not admitted.
const withheldEvery = 10 * time.Minute

// lasting is a port that has not been admitted for longer than a start takes.
type lasting struct {
	port *link.Port
	d    *desired.Endpoint // nil if the port is nobody's
}

// lastingIn gives the lasting ports of the managed bridges.
func lastingIn(s *reconcile.State, now time.Time) []lasting {
	var out []lasting
	for _, p := range s.Unknown {
		out = append(out, lasting{port: p})
	}
	for _, d := range s.Want.Endpoints {
		if d.Port != nil && d.Unmanaged == "" && s.Guard.Ports[d.Port.Index].State == guard.Quarantined && now.Sub(d.Port.Since) >= desired.Patience {
			out = append(out, lasting{d.Port, d})
		}
	}
	return out
}

// withholding is what was published and logged about one port that is not admitted.
type withholding struct {
	told, logged guard.Violations
	at           time.Time // of the last line
}

// withheld reports frames that ports sent, or were to receive, while they were not admitted: an
// event for watchers, and now and then a log line. In monitor mode these frames passed.
// withheld is part of the loop's goroutine.
type withheld struct {
	log   *slog.Logger
	ports map[int]*withholding
}

// pass looks at counts that were just read.
func (w *withheld) pass(a *alerts, now time.Time, counts map[int]guard.Violations, all []lasting) {
	here := map[int]*withholding{}
	for _, l := range all {
		index := l.port.Index
		p := w.ports[index]
		if p == nil {
			p = &withholding{told: a.base[index], logged: a.base[index]}
		}
		here[index] = p
		have := counts[index]
		if have.Quarantine < p.told.Quarantine || have.Withheld < p.told.Withheld { // they began anew
			p.told, p.logged = guard.Violations{}, guard.Violations{}
		}
		for _, e := range []control.Event{
			{Count: have.Quarantine - p.told.Quarantine, Direction: "egress"},
			{Count: have.Withheld - p.told.Withheld, Direction: "ingress"},
		} {
			if e.Count == 0 {
				continue
			}
			e.Time, e.Type, e.Veth, e.Bridge = now.UTC(), control.EventWithheld, l.port.Name, l.port.MasterName
			if l.d != nil {
				about(&e, l.d)
			}
			if a.monitor {
				e.Mode = control.ModeMonitor
			}
			a.hub.Publish(e)
		}
		p.told = have
		w.line(a, now, l, p)
	}
	w.ports = here
}

func (w *withheld) line(a *alerts, now time.Time, l lasting, p *withholding) {
	sent, received := p.told.Quarantine-p.logged.Quarantine, p.told.Withheld-p.logged.Withheld
	if sent+received == 0 || !p.at.IsZero() && now.Sub(p.at) < withheldEvery {
		return
	}
	p.logged, p.at = p.told, now
	what := "a port that is not admitted was kept from sending and receiving"
	attrs := []any{"veth", l.port.Name, "bridge", l.port.MasterName, "sent", sent, "received", received}
	if l.d != nil {
		attrs = append([]any{"container", l.d.Container.Name, "network", l.d.Network.Name}, attrs...)
	}
	if a.monitor {
		what = "a port that is not admitted would be kept from sending and receiving"
		attrs = append(attrs, "mode", control.ModeMonitor)
	}
	w.log.Warn(what, attrs...)
}
