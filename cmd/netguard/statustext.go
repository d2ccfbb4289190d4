package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"netguard/agent/control"
)

// view is how a status is shown.
type view struct {
	wide   bool
	width  int // in columns; wide does not keep to it
	colour bool
	now    time.Time // whose zone is the reader's
}

// statusText is a status for people: a line about the host, a row for each
// endpoint, and what is wrong together with its remedy.
func statusText(s control.Status, v view) string {
	endpoints := sorted(s.Endpoints)
	var b strings.Builder
	b.WriteString(headline(s, v))
	switch {
	case len(endpoints) == 0 && s.Docker.ReadAt.IsZero():
		b.WriteString("\nDocker has not said yet which containers there are.\n")
	case len(endpoints) == 0:
		b.WriteString("\nNo container is on a network.\n")
	default:
		t, width := narrowTable(endpoints), v.width
		if v.wide {
			t, width = wideTable(endpoints), 0
		}
		b.WriteString("\n" + t.format(width, true, v.colour))
	}
	if notes := notes(s, endpoints, v); notes != "" {
		b.WriteString("\n" + notes)
	}
	return b.String()
}

func sorted(endpoints []control.Endpoint) []control.Endpoint {
	return slices.SortedStableFunc(slices.Values(endpoints), func(a, b control.Endpoint) int {
		return cmp.Or(strings.Compare(a.Container, b.Container), strings.Compare(a.Network, b.Network))
	})
}

// headline says how the host is.
func headline(s control.Status, v view) string {
	docker := "docker " + cmp.Or(s.Docker.Version, "unknown")
	if s.Docker.Firewall != "" {
		docker += ", " + s.Docker.Firewall
	}
	parts := []cell{{text: "mode " + s.Mode}, {text: docker}}
	if s.Mode == control.ModeMonitor {
		parts[0] = cell{text: "mode monitor: only limits are enforced", style: yellow}
	} else if s.Admission != "" {
		parts[0].text += ", admission " + s.Admission
	}
	switch {
	case s.Starting:
		return joined(append(parts[:1], cell{text: "starting: the agent has not read Docker's containers yet; ask again in a moment", style: yellow}), v)
	case !s.Docker.Connected:
		parts[1] = cell{text: "! " + docker + ", not connected", style: red}
	}
	when := verified(s.VerifiedAt, v.now)
	if s.InSync {
		parts = append(parts, cell{text: "in sync, " + when})
	} else {
		parts = append(parts, cell{text: "! NOT IN SYNC, " + when, style: red})
	}
	wrong := 0
	for _, e := range s.Endpoints {
		if e.Wrong() {
			wrong++
		}
	}
	parts = append(parts, cell{text: count(len(s.Endpoints), "endpoint", "endpoints")})
	if wrong > 0 {
		parts = append(parts, cell{text: fmt.Sprintf("! %d not as declared", wrong), style: red})
	}
	if s.Mode == control.ModeMonitor {
		parts = append(parts, would(s))
	}
	if v.wide {
		parts = append(parts, kernelHas("leaf", s.Shaper.Leaf, s.Shaper.Missing, ", ")...)
		parts = append(parts, kernelHas("guard", s.Guard.Tier, s.Guard.Missing, "; ")...)
		var why []string
		if s.Guard.ChecksumMissing != "" {
			why = []string{s.Guard.ChecksumMissing}
		}
		parts = append(parts, kernelHas("late checksums", s.Guard.Checksum, why, "")...)
	}
	return joined(parts, v)
}

// kernelHas says how much of something the kernel has, and what it lacks.
func kernelHas(what, kind string, missing []string, between string) []cell {
	if kind == "" {
		return nil
	}
	text := what + " " + kind
	if len(missing) > 0 {
		text += " (the kernel lacks " + strings.Join(missing, between) + ")"
	}
	return []cell{{text: text}}
}

// would says what an agent that enforces would have refused.
func would(s control.Status) cell {
	var packets, frames uint64
	for _, e := range s.Endpoints {
		packets += e.Denied
		if frames += refused(e.Violations); e.State == control.Quarantined {
			frames += e.Withheld.Total()
		}
	}
	for _, p := range s.UnknownPorts {
		frames += p.Withheld.Total()
	}
	if packets+frames == 0 {
		return cell{text: "nothing would have been denied"}
	}
	return cell{text: fmt.Sprintf("would have denied: %s packets, %s frames", humanCount(packets), humanCount(frames)), style: yellow}
}

// joined puts texts into a line, or more where they do not fit.
func joined(parts []cell, v view) string {
	const between = " | "
	var b strings.Builder
	at := 0
	for i, p := range parts {
		text := printable(p.text)
		switch n := columns(text); {
		case i == 0:
			at = n
		case at+len(between)+n > v.width && !v.wide:
			b.WriteByte('\n')
			at = n
		default:
			b.WriteString(between)
			at += len(between) + n
		}
		b.WriteString(p.style.on(text, v.colour))
	}
	return b.String() + "\n"
}

func verified(at, now time.Time) string {
	if at.IsZero() {
		return "never verified"
	}
	at = at.In(now.Location())
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return "verified " + at.Format(time.TimeOnly)
	}
	return "verified " + at.Format(time.DateTime)
}

func narrowTable(endpoints []control.Endpoint) *table {
	t := &table{columns: []column{
		markColumn, {head: "CONTAINER", least: 12, cut: cutMiddle}, {head: "NETWORK", least: 8, cut: cutMiddle}, {head: "STATE"},
		{head: "INGRESS", right: true}, {head: "PASSED", right: true},
		{head: "EGRESS", right: true}, {head: "PASSED", right: true},
		{head: "DROPS", right: true}, {head: "DENIED", right: true}, {head: "POLICY", least: 7, cut: cutEnd},
	}}
	for _, e := range endpoints {
		t.endpoint(e, []cell{mark(e), name(e), {text: e.Network}, state(e)},
			cell{text: humanLimit(e.Ingress.RateBPS)}, cell{text: humanBytes(e.Ingress.Bytes)},
			cell{text: humanLimit(e.Egress.RateBPS)}, cell{text: humanBytes(e.Egress.Bytes)},
			cell{text: humanCount(e.Ingress.Drops + e.Egress.Drops)}, cell{text: humanCount(e.Denied)},
			cell{text: policies(e.Policy, 100), short: policies(e.Policy, 1)})
	}
	return t
}

func wideTable(endpoints []control.Endpoint) *table {
	t := &table{columns: []column{
		markColumn, {head: "CONTAINER"}, {head: "ID"}, {head: "NETWORK"}, {head: "BRIDGE"}, {head: "VETH"},
		{head: "MAC"}, {head: "IPV4"}, {head: "IPV6"}, {head: "STATE"},
	}}
	for _, head := range []string{"INGRESS", "EGRESS"} {
		t.columns = append(t.columns, column{head: head, right: true}, column{head: "BURST", right: true},
			column{head: "FROM"}, column{head: "PASSED", right: true}, column{head: "PACKETS", right: true},
			column{head: "DROPS", right: true})
	}
	t.columns = append(t.columns, column{head: "DENIED", right: true}, column{head: "GUARD", right: true}, column{head: "POLICY"})
	for _, e := range endpoints {
		var rest []cell
		for _, d := range []control.Traffic{e.Ingress, e.Egress} {
			burst := "-"
			if d.BurstBytes > 0 {
				burst = humanBytes(d.BurstBytes)
			}
			rest = append(rest, cell{text: humanLimit(d.RateBPS)}, cell{text: burst}, orDash(d.Source),
				cell{text: humanBytes(d.Bytes)}, cell{text: humanCount(d.Packets)}, cell{text: humanCount(d.Drops)})
		}
		rest = append(rest, cell{text: humanCount(e.Denied)}, cell{text: humanCount(refused(e.Violations))}, cell{text: policies(e.Policy, 100)})
		t.endpoint(e, []cell{mark(e), name(e), {text: fmt.Sprintf("%.12s", e.ID)}, {text: e.Network},
			orDash(e.Bridge), orDash(e.Veth), orDash(e.MAC), orDash(e.IPv4), orDash(e.IPv6), state(e)}, rest...)
	}
	return t
}

// endpoint adds a row: what tells an endpoint, and the rest, or why it is unmanaged.
func (t *table) endpoint(e control.Endpoint, cells []cell, rest ...cell) {
	r := row{cells: append(cells, rest...)}
	if e.State == control.Unmanaged {
		r = row{cells: cells, tail: cell{text: e.Reason, style: dim}}
	}
	t.add(r)
}

func mark(e control.Endpoint) cell {
	if e.Wrong() {
		return cell{text: "!", style: red}
	}
	return cell{}
}

// name names the container and those in the same network namespace.
func name(e control.Endpoint) cell {
	c := cell{text: e.Container}
	if len(e.SharedBy) > 0 {
		c.text += " (+" + strings.Join(e.SharedBy, " +") + ")"
		c.short = fmt.Sprintf("%s (+%d)", e.Container, len(e.SharedBy))
	}
	switch {
	case e.Wrong():
		c.style = red
	case e.State == control.Unmanaged:
		c.style = dim
	}
	return c
}

func state(e control.Endpoint) cell {
	switch {
	case e.State == control.Admitted && e.Missing == "":
		return cell{text: e.State}
	case e.State == control.Unmanaged:
		return cell{text: e.State, style: dim}
	}
	return cell{text: e.State, style: red}
}

func orDash(s string) cell { return cell{text: cmp.Or(s, "-")} }

// policies names the policies that isolate an endpoint, so many by direction.
func policies(p control.Policies, most int) string {
	var parts []string
	switch {
	case len(p.Faults) > 0 && most == 1:
		return "closed: fault"
	case len(p.Faults) > 0:
		return "closed: " + strings.Join(p.Faults, "; ")
	}
	for _, d := range []struct {
		name  string
		names []string
	}{{"in:", p.Ingress}, {"out:", p.Egress}} {
		if len(d.names) == 0 {
			continue
		}
		text := d.name + strings.Join(d.names[:min(most, len(d.names))], ",")
		if more := len(d.names) - most; more > 0 {
			text += fmt.Sprintf("+%d", more)
		}
		parts = append(parts, text)
	}
	return cmp.Or(strings.Join(parts, " "), "open")
}
