package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// burst makes so many lines out of those of real events: one after the other as
// often as needed, every second one about a container and a network that nobody has.
func burst(lines []string, containers []string, count int) []string {
	out := make([]string, count)
	for i := range out {
		out[i] = lines[i%len(lines)]
		if i%2 == 1 {
			for _, id := range containers {
				out[i] = strings.ReplaceAll(out[i], id, fmt.Sprintf("%064x", i))
			}
		}
	}
	return out
}

// TestStormOfEvents has Docker tell 2,000 things at once, again and again.
func TestStormOfEvents(t *testing.T) {
	t.Parallel()
	s := newStorming(t)
	late := s.late(t)
	s.await(t, "all are admitted", s.well(4))
	late.Rename("renamed")
	late.Remove()
	s.await(t, "it is gone", s.well(3))
	before := holdingOf(t, s.e, s.a)
	lines := s.p.Events()
	for _, containers := range [][]string{nil, {s.db.ID, s.api.ID, s.web.ID, late.ID}} {
		asked := s.p.Asked("/")
		began := time.Now()
		s.p.Flood(burst(lines, containers, 2000))
		late := s.late(t) // it comes with the storm
		s.await(t, "all are admitted", s.well(4))
		s.enforced(t, late.to(false, s.db, "tcp/80")...)
		n := s.p.Asked("/") - asked
		t.Logf("2000 events: Docker was asked %d times, and all was well after %v", n, time.Since(began).Round(time.Millisecond))
		if n > 400 {
			t.Errorf("Docker was asked %d times for the sake of 2000 events at once", n)
		}
		late.Remove()
		s.await(t, "it is gone", s.well(3))
	}
	before.back(t, s.e, s.a)
}

// TestChurn makes Docker really do all that it tells of, as fast as it can.
func TestChurn(t *testing.T) {
	t.Parallel()
	churnFor(t, 4*time.Second, 0)
}

func TestSoakChurn(t *testing.T) {
	soaking(t)
	churnFor(t, 0, 2000)
}

// churnFor lasts so long, and until so many events came.
func churnFor(t *testing.T, lasts time.Duration, events int) {
	s := newStorming(t)
	s.e.Network("other", Subnet("198.18.93.0/24"))
	before := holdingOf(t, s.e, s.a)
	began, asked, told := time.Now(), s.p.Asked("/"), s.p.Told()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	var done, failed atomic.Int64 // Docker in a hurry fails now and then by itself
	loop := func(f func(i int) error) {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := f(i); err != nil {
					failed.Add(1)
					t.Logf("Docker failed: %v", err)
				} else {
					done.Add(1)
				}
			}
		})
	}
	c := s.e.Client
	renamed, moving, restarted := s.e.Run("renamed", On("net")), s.e.Run("moving", On("net")), s.e.Create("restarted", On("net"), Label(egressRate, "5mbit"))
	loop(func(i int) error { return c.ContainerRename(t.Context(), renamed.ID, fmt.Sprintf("renamed%d", i)) })
	loop(func(int) error {
		if err := c.NetworkConnect(t.Context(), "other", moving.ID, nil); err != nil {
			return err
		}
		return c.NetworkDisconnect(t.Context(), "other", moving.ID, true)
	})
	loop(func(int) error {
		if err := restarted.TryStart(t.Context()); err != nil {
			return err
		}
		return c.ContainerKill(t.Context(), restarted.ID, "KILL")
	})
	most := 0
	for time.Since(began) < lasts || s.p.Told()-told < events {
		s.enforced(t)
		s.ask(t)
		most = max(most, residentOf(t, s.a))
	}
	stop()
	all.Wait()
	if failed.Load() > 0 { // what failed half-way is brought to the end
		_ = c.NetworkDisconnect(t.Context(), "other", moving.ID, true)
		_ = c.ContainerKill(t.Context(), restarted.ID, "KILL")
	}
	if failed.Load() > done.Load()/10 {
		t.Errorf("Docker failed %d times, and did %d times what it was asked for", failed.Load(), done.Load())
	}
	n := s.p.Told() - told
	t.Logf("%d events in %v: Docker was asked %d times; at most %d MiB", n, time.Since(began).Round(time.Millisecond), s.p.Asked("/")-asked, most)
	if got := s.p.Asked("/") - asked; got > 3*n+100 {
		t.Errorf("Docker was asked %d times for the sake of %d events", got, n)
	}
	name := renamed.Inspect().Name
	began = time.Now()
	s.await(t, "all is as Docker has it", func(is control.Status) bool {
		return s.well(5)(is) && "/"+onNet(is, renamed).Container == name
	})
	t.Logf("all was right %v after the last event", time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
	restarted.Start()
	s.await(t, "it is limited", limited(restarted, "net", 0, 5e6))
	for _, c := range []*Container{renamed, moving, restarted} {
		c.Remove()
	}
	s.await(t, "all is as before, with one limit", func(is control.Status) bool { return s.well(3)(is) && len(ifbs(s.e)) == 1 })
	before.back(t, s.e, s.a)
}

// onNet is a container's endpoint, if it has one.
func onNet(s control.Status, c *Container) control.Endpoint {
	e, _ := Endpoint(s, c, "net")
	return e
}
