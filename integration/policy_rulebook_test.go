package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// rulebook puts policy files in force, and knows when they are.
type rulebook struct {
	a      *Agent
	client *control.Client
	// beacon is a container that is on a network of its own. A policy about it
	// that has a new name each time says which files the agent has put in force.
	beacon *Container
	files  map[string]string
	edits  int
}

const beaconNet = "beacon"

func newRulebook(e *Engine, a *Agent) *rulebook {
	e.Network(beaconNet)
	return &rulebook{a: a, client: control.NewClient(a.Socket), beacon: e.Run("beacon", On(beaconNet)), files: map[string]string{}}
}

// enact makes these all the policy files, and returns when they are in force.
func (r *rulebook) enact(t testing.TB, files map[string]string) control.Status {
	t.Helper()
	r.post(t, files)
	return r.await(t, "the policies are in force", r.inForce)
}

// post is enact without the waiting.
func (r *rulebook) post(t testing.TB, files map[string]string) {
	t.Helper()
	a := r.a.For(t)
	for name := range r.files {
		if _, stays := files[name]; !stays {
			a.RemovePolicy(name)
		}
	}
	for name, text := range files {
		if old, is := r.files[name]; !is || old != text {
			a.WritePolicy(name, text)
		}
	}
	r.files = files
	r.edits++
	a.WritePolicy("zz-beacon.yaml", fmt.Sprintf("{name: %s, select: {container: beacon}, ingress: [{}]}\n", r.mark()))
}

func (r *rulebook) mark() string { return fmt.Sprintf("beacon-%d", r.edits) }

// inForce tells whether the files that were posted last are in force, for all.
func (r *rulebook) inForce(s control.Status) bool {
	ep, ok := Endpoint(s, r.beacon, beaconNet)
	return ok && s.InSync && slices.Contains(ep.Policy.Ingress, r.mark())
}

// await is Agent.AwaitStatus without a process for each question. It ends early when
// any of over is true.
func (r *rulebook) await(t testing.TB, what string, wanted func(control.Status) bool, over ...func() bool) control.Status {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // also while cleaning up
		s, err := r.client.Status(ctx)
		cancel()
		if err == nil && wanted(s) || slices.ContainsFunc(over, func(f func() bool) bool { return f() }) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: error %v, status %+v\nthe agent's log:\n%s", what, err, s, r.a.Log())
		}
		time.Sleep(10 * time.Millisecond) // there is no event to wait for
	}
}

// awaitAdmitted waits until so many endpoints are admitted, beside the beacon's.
func (r *rulebook) awaitAdmitted(t testing.TB, endpoints int) {
	t.Helper()
	r.await(t, fmt.Sprintf("%d endpoints are admitted", endpoints), func(s control.Status) bool {
		return len(s.Endpoints) == endpoints+1 && AllAdmitted(s) && s.InSync
	})
}
