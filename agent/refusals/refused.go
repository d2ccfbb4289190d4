// Package refusals tells what was refused while it happens: frames that the guard refused,
// frames of ports that are not admitted, and connections that policies denied. It publishes
// events for those who watch, and lines of the log.
package refusals

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"netguard/agent/events"
	"netguard/agent/pace"
	"netguard/agent/reconcile"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

// A listener that fails is tried again after minRetry. Each further failure doubles the wait,
// up to maxRetry.
const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

// Refusals reports what is refused, while it happens.
type Refusals struct {
	log     *slog.Logger
	Hub     *events.Hub
	claims  *claims
	denials *denials
	Alerts  *alerts
	groups  map[uint16]func(events.Sample) // what the kernel hands over, and who takes it
}

// Source is what Refusals are made of.
type Source struct {
	State     func() *reconcile.State
	Addresses func() (map[netip.Addr]bool, error) // the host's
	Guard     frameCounter
}

// frameCounter counts the frames that the guard refused. Only the loop's goroutine asks it.
type frameCounter interface {
	Violations() (map[int]guard.Violations, error)
	Features() guard.Features
}

// New makes Refusals. noSamples says why iptables cannot hand packets over.
func New(log *slog.Logger, src Source, noSamples error, monitor bool) *Refusals {
	hub, c := &events.Hub{}, &claims{}
	r := &Refusals{log: log, Hub: hub, claims: c, groups: map[uint16]func(events.Sample){}}
	r.denials = &denials{log: log, hub: hub, state: src.State, local: src.Addresses, some: pace.NewWakeup()}
	if monitor {
		r.denials.would = &wouldDeny{log: log}
	}
	r.Alerts = &alerts{log: log, hub: hub, claims: c, monitor: monitor, count: src.Guard.Violations, samples: src.Guard.Features().Samples, withheld: withheld{log: log}}
	if src.Guard.Features().Samples {
		r.groups[guard.SampleGroup] = c.add
	}
	if noSamples == nil {
		r.groups[iptables.SampleGroup] = r.denials.add
	} else {
		log.Warn("monitor cannot show denied connections; status counts them all the same", "error", noSamples)
	}
	return r
}

// Tasks are the tasks that run until their context ends. None of them fails otherwise: that
// would stop an agent that can still enforce.
func (r *Refusals) Tasks() []func(context.Context) error {
	all := []func(context.Context) error{r.denials.run}
	for group, take := range r.groups {
		all = append(all, func(ctx context.Context) error { return r.listen(ctx, group, take) })
	}
	return all
}

// listen reads a group, and tries again when it cannot.
func (r *Refusals) listen(ctx context.Context, group uint16, take func(events.Sample)) error {
	wait := minRetry
	told := ""
	for {
		l, err := events.Listen(group)
		if err == nil {
			began := time.Now()
			if err = l.Run(ctx, take); time.Since(began) > maxRetry {
				wait, told = minRetry, ""
			}
			if lost := l.Lost(); lost > 0 {
				r.log.Debug("not all that the kernel handed over was read", "group", group, "lost", lost)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			r.log.Warn("what is refused is counted and not shown; trying again", "error", err)
		}
		if errors.Is(err, events.ErrGroupTaken) {
			wait = maxRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, maxRetry)
	}
}
