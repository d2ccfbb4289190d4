// Package status answers what is enforced, read from the kernel when somebody asks, and what
// policies do and would do.
package status

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/observe"
	"netguard/agent/reconcile"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper/tc"
)

// Reader answers what is enforced, from the kernel at the time of asking.
// It has drivers of its own, so that asking never waits for writing.
type Reader struct {
	Mode     string
	Loop     *reconcile.Loop
	View     *observe.Observer
	Features tc.Features
	Guard    *guard.Driver
	Engine   *docker.Engine
	Began    time.Time // of the agent
	// Findings tells what is wrong with the operator's configuration and policies.
	Findings func() []string

	kernel *kernelReader
	Shaper *tc.Driver
	Filter *iptables.Driver
	Around *ForeignRules
}

// New gives a reader with these fields.
func New(r Reader) *Reader {
	r.kernel = newReader()
	return &r
}

// Status implements control.Source. If the kernel cannot be read in time, it gives the last
// reading, and says so in a finding.
func (r *Reader) Status(ctx context.Context) (control.Status, error) {
	s := r.Loop.State()
	if s == nil {
		s = &reconcile.State{Want: &desired.State{}}
	}
	is, fault := r.kernel.now(ctx, readWithin, func(ctx context.Context) (*reading, error) { return r.read(ctx, s) })
	if is == nil {
		return control.Status{}, fault
	}
	out := control.Status{
		Mode:      r.Mode,
		Admission: s.Admission,
		Docker: control.Docker{Version: s.Want.Seen.View.Version, Firewall: s.Want.Seen.View.Firewall,
			Connected: r.Engine.Watching(), ReadAt: s.Want.Seen.At.UTC()},
		Shaper:       control.Shaper{Leaf: string(r.Features.Leaf), Missing: r.Features.Missing},
		Guard:        is.guard,
		VerifiedAt:   is.at,
		InSync:       is.inSync && fault == nil,
		Findings:     append([]string{}, is.findings...),
		Endpoints:    append([]control.Endpoint{}, is.endpoints...),
		UnknownPorts: append([]control.UnknownPort(nil), is.unknown...),
	}
	if fault != nil {
		out.Findings = append(out.Findings, late(is, fault))
	}
	if text := s.Policies.Finding(); text != "" {
		out.InSync = false
		out.Findings = append(out.Findings, text)
	}
	now := r.View.Current()
	out.Starting = starting(now, s.Want.Seen.Complete, time.Since(r.Began))
	if !out.Starting {
		out.Findings = append(out.Findings, engineFindings(out.Docker.Connected, now, time.Now())...)
	}
	if text := unlistedFinding(s.Want, time.Now()); text != "" {
		out.Findings = append(out.Findings, text)
	}
	if !s.Want.Seen.Complete {
		out.InSync = false
	}
	out.Findings = append(append(out.Findings, s.Bridges...), s.Contentions...)
	out.Findings = append(out.Findings, r.Findings()...)
	return out, nil
}

// queues is what the kernel holds of limits.
func (r *Reader) queues(s *reconcile.State) (*tc.Snapshot, error) {
	if len(s.Want.Endpoints) == 0 {
		return &tc.Snapshot{}, nil
	}
	snapshot, err := r.Shaper.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("read kernel: %w", err)
	}
	return snapshot, nil
}

// read reads what an answer says of the kernel, all parts of it at the same time.
func (r *Reader) read(ctx context.Context, s *reconcile.State) (*reading, error) {
	var snapshot *tc.Snapshot
	var held rules
	var guarding guard.Report
	var untrack string
	g, asking := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		snapshot, err = r.queues(s)
		return err
	})
	g.Go(func() (err error) {
		held, err = r.rules(asking, s)
		return err
	})
	g.Go(func() (err error) {
		guarding, err = r.guarding(asking, s)
		return err
	})
	if s.Policies.Closes() {
		g.Go(func() error {
			if others, err := r.Around.get(asking); err == nil { // if it cannot be read, doctor tells
				untrack = untracked(others.Untracked(nil))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	features := r.Guard.Features()
	out := &reading{inSync: true, at: time.Now().UTC(), endpoints: make([]control.Endpoint, 0, len(s.Want.Endpoints)),
		guard: control.Guard{Tier: features.Tier(), Missing: features.Missing, Checksum: s.Keeping, ChecksumMissing: features.NoChecksum}}
	if len(guarding.Drift) > 0 {
		out.inSync = false
		out.findings = append(out.findings, fmt.Sprintf("the kernel does not hold the guard now (%s): it is put back within %v", guarding.Drift[0], reconcile.GuardEvery))
	}
	out.findings = append(out.findings, guarding.Warnings...)
	if len(held.drift) > 0 {
		out.inSync = false
		out.findings = append(out.findings, fmt.Sprintf("the kernel does not hold the rules of policies now (%s): they are put back within %v", held.drift[0], reconcile.PoliceEvery))
	}
	if untrack != "" {
		out.findings = append(out.findings, untrack)
	}
	for i := range s.Want.Endpoints {
		e := r.endpoint(s.Want.Endpoints[i], s, snapshot, held, guarding)
		out.inSync = out.inSync && e.Missing == ""
		out.endpoints = append(out.endpoints, e)
	}
	for _, p := range s.Unknown {
		out.unknown = append(out.unknown, control.UnknownPort{Port: p.Name, Bridge: p.MasterName, Withheld: frames(guarding.Violations[p.Index])})
	}
	return out, nil
}

// patient is how long Docker may take to answer before a finding reports it.
const patient = 3 * time.Second

// starting tells whether the agent has just begun and has not read Docker's containers yet.
// After patient it gives false: Docker is late then.
func starting(o observe.Snapshot, complete bool, age time.Duration) bool {
	return !complete && o.At.IsZero() && o.Err == nil && age < patient
}

// engineFindings say how Docker is, and how old what is known of it.
func engineFindings(connected bool, o observe.Snapshot, now time.Time) []string {
	age := "nothing is known of its containers yet"
	if !o.At.IsZero() {
		age = fmt.Sprintf("what is known of its containers is %v old", max(now.Sub(o.At), 0).Round(time.Second))
	}
	switch {
	case !connected:
		return []string{"docker does not answer: what is enforced stays enforced, and new containers are not seen until it does; is dockerd running? " + age}
	case o.Err != nil:
		return []string{fmt.Sprintf("docker cannot be read: %v: what is enforced stays enforced, and new containers are not seen until it can; %s", o.Err, age)}
	case !o.Asking.IsZero() && now.Sub(o.Asking) >= patient:
		return []string{fmt.Sprintf("docker has not answered for %v: new containers are not seen until it does; is the host overloaded? %s", now.Sub(o.Asking).Round(time.Second), age)}
	}
	return nil
}

// rules is what the kernel holds of policies.
type rules struct {
	drift  []string
	denied map[netip.Addr]uint64
}

func (r *Reader) rules(ctx context.Context, s *reconcile.State) (rules, error) {
	var out rules
	if s.Policies == nil || s.Policies.Ruling == nil {
		return out, nil
	}
	err := r.Filter.Expect(s.Policies.Ruling.Wish)
	if err == nil {
		var found iptables.Drift
		found, err = r.Filter.Verify(ctx)
		out.drift = found.Changes
	}
	if err == nil {
		out.denied, err = r.Filter.Denied()
	}
	if err != nil {
		return out, fmt.Errorf("read kernel: %w", err)
	}
	return out, nil
}

// guarding is what the kernel holds of the guard.
func (r *Reader) guarding(ctx context.Context, s *reconcile.State) (guard.Report, error) {
	var out guard.Report
	var err error
	if !s.Want.Seen.Complete {
		return out, nil
	}
	if asked := r.Loop.Ask(ctx, func() { out, err = r.Guard.Read(r.Loop.GuardLook()) }); asked != nil {
		return out, fmt.Errorf("ask for the guard: %w", asked)
	}
	if errors.Is(err, guard.ErrNothingApplied) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("read kernel: %w", err)
	}
	return out, nil
}

// unlistedFinding says how many endpoints Docker has not listed for long; "" if there are none.
func unlistedFinding(want *desired.State, now time.Time) string {
	n := want.Seen.MissingLong(now)
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("docker does not list %d of the endpoints below though their ports are there: what is enforced for them stays until their ports go; if docker network inspect does not name them, restart dockerd", n)
}
