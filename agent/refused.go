package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"netguard/agent/events"
	"netguard/agent/pace"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

// A listener that fails is tried again after minRetry, and later and later up to maxRetry.
const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

// refused is all that tells what was refused, while it happens.
type refused struct {
	log     *slog.Logger
	hub     *events.Hub
	claims  *claims
	denials *denials
	alerts  *alerts
	groups  map[uint16]func(events.Sample) // what the kernel hands over, and who takes it
}

// refusedSource is what it is made of.
type refusedSource struct {
	state func() *state
	local func() (map[netip.Addr]bool, error) // the host's addresses
	guard frameCounter
}

// frameCounter counts the frames that the guard refused. Only the loop's goroutine asks it.
type frameCounter interface {
	Violations() (map[int]guard.Violations, error)
	Features() guard.Features
}

// newRefused makes it. noSamples says why iptables cannot hand packets over.
func newRefused(log *slog.Logger, src refusedSource, noSamples error, monitor bool) *refused {
	hub, c := &events.Hub{}, &claims{}
	r := &refused{log: log, hub: hub, claims: c, groups: map[uint16]func(events.Sample){}}
	r.denials = &denials{log: log, hub: hub, state: src.state, local: src.local, some: pace.NewWakeup()}
	if monitor {
		r.denials.would = &wouldBe{log: log}
	}
	r.alerts = &alerts{log: log, hub: hub, claims: c, monitor: monitor, count: src.guard.Violations, samples: src.guard.Features().Samples, withheld: withheld{log: log}}
	if src.guard.Features().Samples {
		r.groups[guard.SampleGroup] = c.add
	}
	if noSamples == nil {
		r.groups[iptables.SampleGroup] = r.denials.add
	} else {
		log.Warn("monitor cannot show denied connections; status counts them all the same", "error", noSamples)
	}
	return r
}

// tasks are those that run until their context ends. None of them fails: there is
// nothing to stop enforcing for.
func (r *refused) tasks() []func(context.Context) error {
	all := []func(context.Context) error{r.denials.run}
	for group, take := range r.groups {
		all = append(all, func(ctx context.Context) error { return r.listen(ctx, group, take) })
	}
	return all
}

// listen reads a group, and tries again when it cannot.
func (r *refused) listen(ctx context.Context, group uint16, take func(events.Sample)) error {
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
