package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"netguard/agent/control"
	"netguard/agent/docker"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// statusReader answers what is enforced, from the kernel at the time of asking.
// It has a driver of its own, so that asking never waits for writing.
type statusReader struct {
	mode     string
	loop     *loop
	engine   *docker.Engine
	settings *settings
	policies *policies

	mu     sync.Mutex // one reading at a time
	driver *tc.Driver
	filter *iptables.Driver
}

// Status implements control.Source.
func (r *statusReader) Status(ctx context.Context) (control.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return control.Status{}, err
	}
	s := r.loop.state.Load()
	if s == nil {
		s = &state{}
	}
	out := control.Status{
		Mode:      r.mode,
		Admission: s.admission,
		Docker: control.Docker{Version: s.observed.view.Version, Firewall: s.observed.view.Firewall,
			Connected: r.engine.Watching(), ReadAt: s.observed.at.UTC()},
		Shaper:    control.Shaper{Leaf: string(r.loop.features.Leaf), Missing: r.loop.features.Missing},
		Findings:  []string{},
		Endpoints: make([]control.Endpoint, 0, len(s.desires)),
		InSync:    true,
	}
	snapshot, err := r.driver.Snapshot()
	if err != nil {
		return control.Status{}, fmt.Errorf("read kernel: %w", err)
	}
	rules, err := r.rules(ctx, s)
	if err != nil {
		return control.Status{}, err
	}
	guarding, err := r.guarding(ctx, s)
	if err != nil {
		return control.Status{}, err
	}
	out.Guard.Missing = r.loop.sentry.driver.Features().Missing
	if len(guarding.Drift) > 0 {
		out.InSync = false
		out.Findings = append(out.Findings, fmt.Sprintf("the kernel does not hold the guard now (%s): it is put back within %v", guarding.Drift[0], guardEvery))
	}
	out.VerifiedAt = time.Now().UTC()
	if len(rules.drift) > 0 {
		out.InSync = false
		out.Findings = append(out.Findings, fmt.Sprintf("the kernel does not hold the rules of policies now (%s): they are put back within %v", rules.drift[0], policeEvery))
	}
	if text := s.policing.finding(); text != "" {
		out.InSync = false
		out.Findings = append(out.Findings, text)
	}
	for i := range s.desires {
		e := r.endpoint(&s.desires[i], s, snapshot, rules, guarding)
		if e.State == control.Pending {
			out.InSync = false
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	out.Findings = append(out.Findings, engineFindings(out.Docker.Connected, r.loop.observer.current(), time.Now())...)
	if text := heldFinding(s.held, time.Now()); text != "" {
		out.Findings = append(out.Findings, text)
	}
	if !s.observed.complete {
		out.InSync = false
	}
	out.Findings = append(out.Findings, s.fights...)
	out.Findings = append(out.Findings, r.settings.findings()...)
	out.Findings = append(out.Findings, r.policies.findings()...)
	return out, nil
}

// patient is how long an answer of Docker's is not worth a word.
const patient = 3 * time.Second

// engineFindings say how Docker is, and how old what is known of it.
func engineFindings(connected bool, o observed, now time.Time) []string {
	age := "nothing is known of its containers yet"
	if !o.at.IsZero() {
		age = fmt.Sprintf("what is known of its containers is %v old", max(now.Sub(o.at), 0).Round(time.Second))
	}
	switch {
	case !connected:
		return []string{"docker does not answer: what is enforced stays enforced, and new containers are not seen until it does; is dockerd running? " + age}
	case o.err != nil:
		return []string{fmt.Sprintf("docker cannot be read: %v: what is enforced stays enforced, and new containers are not seen until it can; %s", o.err, age)}
	case !o.asking.IsZero() && now.Sub(o.asking) >= patient:
		return []string{fmt.Sprintf("docker has not answered for %v: new containers are not seen until it does; is the host overloaded? %s", now.Sub(o.asking).Round(time.Second), age)}
	}
	return nil
}

// rules is what the kernel holds of policies.
type rules struct {
	drift  []string
	denied map[netip.Addr]uint64
}

func (r *statusReader) rules(ctx context.Context, s *state) (rules, error) {
	var out rules
	if s.policing == nil || s.policing.ruling == nil {
		return out, nil
	}
	err := r.filter.Expect(s.policing.ruling.wish())
	if err == nil {
		out.drift, err = r.filter.Verify(ctx)
	}
	if err == nil {
		out.denied, err = r.filter.Denied()
	}
	if err != nil {
		return out, fmt.Errorf("read kernel: %w", err)
	}
	return out, nil
}

// guarding is what the kernel holds of the guard.
func (r *statusReader) guarding(ctx context.Context, s *state) (guard.Report, error) {
	var out guard.Report
	var err error
	if !s.observed.complete {
		return out, nil
	}
	if asked := r.loop.ask(ctx, func() { out, err = r.loop.sentry.driver.Read() }); asked != nil {
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

func (r *statusReader) endpoint(d *desire, s *state, snapshot *tc.Snapshot, rules rules, guarding guard.Report) control.Endpoint {
	e := control.Endpoint{
		Container: d.Container.Name, ID: d.Key.Container, Network: d.Network.Name, Bridge: d.Network.Bridge,
		MAC: d.Attachment.MAC.String(), State: control.Admitted, Reason: d.Unmanaged, Findings: d.faults(),
		Policy:  control.Policies{Ingress: []string{}, Egress: []string{}},
		Ingress: traffic(d, shaper.Ingress), Egress: traffic(d, shaper.Egress),
	}
	for _, c := range d.Sharers {
		e.SharedBy = append(e.SharedBy, c.Name)
	}
	if d.Attachment.IPv4.IsValid() {
		e.IPv4 = d.Attachment.IPv4.String()
	}
	if d.Attachment.IPv6.IsValid() {
		e.IPv6 = d.Attachment.IPv6.String()
	}
	if d.Port != nil {
		e.Veth = d.Port.Name
		if c, err := snapshot.Counters(d.Port.Index); err == nil {
			e.Ingress.Bytes, e.Ingress.Packets, e.Ingress.Drops = c[shaper.Ingress].Bytes, c[shaper.Ingress].Packets, c[shaper.Ingress].Drops
			e.Egress.Bytes, e.Egress.Packets, e.Egress.Drops = c[shaper.Egress].Bytes, c[shaper.Egress].Packets, c[shaper.Egress].Drops
		}
	}
	if d.Unmanaged != "" {
		e.State = control.Unmanaged
		return e
	}
	for _, a := range []netip.Addr{d.Attachment.IPv4, d.Attachment.IPv6, linkLocal(d.Attachment.MAC)} {
		e.Denied += rules.denied[a]
	}
	why := pending(d, s, snapshot)
	if p := s.policing; p != nil {
		held := p.ruling.states[d.Key]
		e.Policy.Ingress = append(e.Policy.Ingress, held.Policies[netpolicy.Ingress]...)
		e.Policy.Egress = append(e.Policy.Egress, held.Policies[netpolicy.Egress]...)
		for _, lock := range held.Locked {
			e.Policy.Faults = append(e.Policy.Faults, lock)
			e.Findings = append(slices.Clip(e.Findings), r.closed()+lock)
		}
		if why == "" {
			why = p.pending(d.Key, d.Network.Bridge)
		}
	}
	if why == "" && s.guardErr != nil {
		why = fmt.Sprintf("its port is not guarded: %v", s.guardErr)
	}
	if why != "" {
		e.State, e.Reason = control.Pending, why
	}
	if d.Port != nil {
		judge(&e, d, guarding.Ports[d.Port.Index])
		if r.mode == control.ModeMonitor && e.State == control.Quarantined {
			e.Reason = "it would be closed: " + e.Reason
		}
	}
	if len(e.Policy.Faults) > 0 && e.Reason == "" {
		e.Reason = r.closed() + e.Policy.Faults[0]
	}
	return e
}

func (r *statusReader) closed() string {
	if r.mode == control.ModeMonitor {
		return "would be closed both ways: "
	}
	return "closed both ways: "
}

// judge adds what the guard says of an endpoint's port.
func judge(e *control.Endpoint, d *desire, port guard.PortReport) {
	v := port.Violations
	e.Violations = control.Violations{MAC: v.MAC, ARP: v.ARP, IP: v.IP, ND: v.ND, Ethertype: v.Ethertype, DHCP: v.DHCP, Storm: v.Storm, Connections: v.Connections}
	e.Findings = append(slices.Clip(e.Findings), port.Faults...)
	switch port.State {
	case guard.Quarantined:
		e.State = control.Quarantined
		if len(d.wrong) > 0 {
			e.Reason = d.wrong[0]
		} else if e.Reason == "" {
			e.Reason = "not all of its rules are in place yet"
		}
	case guard.Trusted:
		if e.Reason == "" {
			e.Reason = "its port is not guarded: the configuration says so (networks.unguarded)"
		}
	case guard.Pending, guard.Gone:
		if e.State == control.Admitted {
			e.State, e.Reason = control.Pending, "its port is not guarded yet"
		}
	}
}

func traffic(d *desire, dir shaper.Direction) control.Traffic {
	lim := d.limits.Limit[dir]
	t := control.Traffic{RateBPS: uint64(lim.Rate), Source: lim.Source}
	tree := d.wish.Ingress
	if dir == shaper.Egress {
		tree = d.wish.Egress
	}
	if tree != nil {
		t.BurstBytes = uint64(tree.Burst)
	}
	return t
}

// pending says what of an endpoint's wish the kernel does not hold, and what to
// do about it; "" if it holds all.
func pending(d *desire, s *state, snapshot *tc.Snapshot) string {
	if d.Port == nil {
		return fmt.Sprintf("its port on bridge %q is not found: if it does not appear in a second, does the agent run in another network namespace than dockerd?", d.Network.Bridge)
	}
	have, err := snapshot.Endpoint(d.Port.Index)
	if err != nil {
		return fmt.Sprintf("the kernel cannot be read: %v", err)
	}
	in, out := shaper.Conflicts(have, d.wish)
	switch {
	case in:
		return fmt.Sprintf("another program's %s qdisc stands at the root of %s, so ingress is not limited: if nothing needs it, remove it with tc qdisc del dev %s root",
			have.Veth.Root.Kind, d.Port.Name, d.Port.Name)
	case out:
		return fmt.Sprintf("another program's filter or qdisc stands at the ingress of %s, so egress is not limited: if nothing needs it, remove it with tc qdisc del dev %s ingress",
			d.Port.Name, d.Port.Name)
	}
	if err := s.errs[d.Key]; err != nil {
		return fmt.Sprintf("the kernel refused: %v", err)
	}
	if steps := shaper.Diff(have, d.wish); len(steps) > 0 {
		return fmt.Sprintf("the kernel does not hold the limit now (%v is missing): it is put back in a moment", steps[0])
	}
	return ""
}
