package status

import (
	"errors"
	"fmt"
	"slices"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/reconcile"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/shaper"
	"netguard/shaper/tc"
)

func (r *Reader) endpoint(d *desired.Endpoint, s *reconcile.State, snapshot *tc.Snapshot, rules rules, guarding guard.Report) control.Endpoint {
	e := control.Endpoint{
		Container: d.Container.Name, Kind: kindName(d.Attachment.Kind), ID: d.Key.Container, Network: d.Network.Name, Bridge: d.Network.Bridge,
		MAC: d.Attachment.MAC.String(), State: control.Admitted, Reason: d.Unmanaged, Findings: d.Faults(),
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
	for _, a := range d.Own() {
		e.Denied += rules.denied[a]
	}
	for _, p := range d.Allow.Prefixes {
		if p.IsSingleIP() && !slices.Contains(d.Own(), p.Addr()) {
			e.Denied += rules.denied[p.Addr()]
		}
	}
	why := pending(d, s, snapshot)
	if p := s.Policies; p != nil {
		held := p.Ruling.State(d.Key)
		e.Policy.Ingress = append(e.Policy.Ingress, held.Policies[netpolicy.Ingress]...)
		e.Policy.Egress = append(e.Policy.Egress, held.Policies[netpolicy.Egress]...)
		for _, lock := range held.Locked {
			e.Policy.Faults = append(e.Policy.Faults, lock)
			e.Findings = append(slices.Clip(e.Findings), r.closed()+lock)
		}
		if why == "" {
			why = p.Pending(d.Key, d.Network.Bridge)
		}
	}
	if why == "" && s.GuardErr != nil {
		why = fmt.Sprintf("its port is not guarded: %v", s.GuardErr)
	}
	e.Missing, e.Reason = why, why
	var port guard.PortReport
	if d.Port != nil {
		port = guarding.Ports[d.Port.Index]
		counted(&e, guarding.Violations[d.Port.Index])
	}
	judge(&e, d, port, s.Admission == reconcile.AdmissionOpen)
	if r.Mode == control.ModeMonitor && e.State == control.Quarantined {
		e.Reason = "it would be closed: " + e.Reason
	}
	if len(e.Policy.Faults) > 0 && e.Reason == "" {
		e.Reason = r.closed() + e.Policy.Faults[0]
	}
	return e
}

func (r *Reader) closed() string {
	if r.Mode == control.ModeMonitor {
		return "would be closed both ways: "
	}
	return "closed both ways: "
}

// counted adds what was refused at an endpoint's port.
func counted(e *control.Endpoint, v guard.Violations) {
	e.Violations = control.Violations{MAC: v.MAC, ARP: v.ARP, IP: v.IP, ND: v.ND, Ethertype: v.Ethertype, DHCP: v.DHCP, Storm: v.Storm, Connections: v.Connections, Checksum: v.Checksum, Fragments: v.Fragments}
	e.Withheld = frames(v)
}

// judge adds what the guard says of an endpoint's port: whether it is admitted.
func judge(e *control.Endpoint, d *desired.Endpoint, port guard.PortReport, open bool) {
	e.Findings = append(slices.Clip(e.Findings), port.Faults...)
	lacks := func(what string) {
		if e.Missing == "" {
			e.Missing = what
		}
		if e.Reason == "" {
			e.Reason = what
		}
	}
	switch port.State {
	case guard.Admitted:
	case guard.Quarantined:
		e.State = control.Quarantined
		switch {
		case len(d.Wrong) > 0:
			e.Reason = d.Wrong[0]
		case len(port.Faults) > 0 && e.Reason == "":
			e.Reason = port.Faults[0]
		default:
			lacks("not all of its rules are in place yet")
		}
	case guard.Trusted:
		if e.Reason == "" {
			e.Reason = "its port is not guarded: the configuration says so (networks.unguarded)"
		}
	default: // it is not as it should be, or not known yet
		if !open && !port.Passes {
			e.State = control.Quarantined
		}
		lacks("its port is not guarded yet")
	}
}

func traffic(d *desired.Endpoint, dir shaper.Direction) control.Traffic {
	lim := d.Limits.Limit[dir]
	t := control.Traffic{RateBPS: uint64(lim.Rate), Source: lim.Source}
	tree := d.Wish.Ingress
	if dir == shaper.Egress {
		tree = d.Wish.Egress
	}
	if tree != nil {
		t.BurstBytes = uint64(tree.Burst)
	}
	return t
}

// pending says what the kernel lacks of an endpoint's wanted limits, and what to do about it;
// "" if it lacks nothing.
func pending(d *desired.Endpoint, s *reconcile.State, snapshot *tc.Snapshot) string {
	if d.Port == nil {
		return fmt.Sprintf("its port on bridge %q is not found: if it does not appear in a second, does the agent run in another network namespace than dockerd?", d.Network.Bridge)
	}
	// The kernel reports each change of classes and filters to the loop. So pending reads them
	// only if the loop has not checked the port since.
	if !s.Unread[d.Key] && s.Faults[d.Key] == nil && snapshot.Holds(d.Port.Index, d.Wish) {
		return ""
	}
	have, err := snapshot.Endpoint(d.Port.Index)
	if err != nil {
		return fmt.Sprintf("the kernel cannot be read: %v", err)
	}
	if err := reconcile.Conflict(have, d.Wish, d.Port.Name); err != nil {
		return err.Error()
	}
	if err := s.Faults[d.Key]; err != nil && !errors.As(err, new(reconcile.ConflictError)) {
		return fmt.Sprintf("the kernel refused: %v", err)
	}
	if steps := shaper.Diff(have, d.Wish); len(steps) > 0 {
		return fmt.Sprintf("the kernel does not hold the limit now (%v is missing): it is put back in a moment", steps[0])
	}
	return ""
}

// kindName is a kind as status says it.
func kindName(k docker.Kind) string {
	if k == docker.KindContainer {
		return "container"
	}
	return string(k)
}

// frames gives the frames of a port that is not admitted, as status says them.
func frames(v guard.Violations) control.Withheld {
	return control.Withheld{Sent: v.Quarantine, Received: v.Withheld}
}
