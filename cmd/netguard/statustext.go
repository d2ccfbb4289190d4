package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
)

// statusText is a status for people: a line about the host, a row for each
// endpoint, and what is wrong together with its remedy.
func statusText(s control.Status, v term.View) string {
	endpoints := sorted(s.Endpoints)
	var b strings.Builder
	b.WriteString(headline(s, v))
	switch {
	case len(endpoints) == 0 && s.Docker.ReadAt.IsZero():
		b.WriteString("\nDocker has not said yet which containers there are.\n")
	case len(endpoints) == 0:
		b.WriteString("\nNo container is on a network.\n")
	default:
		t, width := narrowTable(endpoints), v.Width
		if v.Wide {
			t, width = wideTable(endpoints), 0
		}
		b.WriteString("\n" + t.Format(width, true, v.Colour))
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
func headline(s control.Status, v term.View) string {
	docker := "docker " + cmp.Or(s.Docker.Version, "unknown")
	if s.Docker.Firewall != "" {
		docker += ", " + s.Docker.Firewall
	}
	parts := []term.Cell{{Text: "mode " + s.Mode}, {Text: docker}}
	if s.Mode == control.ModeMonitor {
		parts[0] = term.Cell{Text: "mode monitor: only limits are enforced", Style: term.Yellow}
	} else if s.Admission != "" {
		parts[0].Text += ", admission " + s.Admission
	}
	switch {
	case s.Starting:
		return joined(append(parts[:1], term.Cell{Text: "starting: the agent has not read Docker's containers yet; ask again in a moment", Style: term.Yellow}), v)
	case !s.Docker.Connected:
		parts[1] = term.Cell{Text: "! " + docker + ", not connected", Style: term.Red}
	}
	when := verified(s.VerifiedAt, v.Now)
	if s.InSync {
		parts = append(parts, term.Cell{Text: "in sync, " + when})
	} else {
		parts = append(parts, term.Cell{Text: "! NOT IN SYNC, " + when, Style: term.Red})
	}
	wrong := 0
	for _, e := range s.Endpoints {
		if e.Wrong() {
			wrong++
		}
	}
	parts = append(parts, term.Cell{Text: count(len(s.Endpoints), "endpoint", "endpoints")})
	if wrong > 0 {
		parts = append(parts, term.Cell{Text: fmt.Sprintf("! %d not as declared", wrong), Style: term.Red})
	}
	if s.Mode == control.ModeMonitor {
		parts = append(parts, would(s))
	}
	if v.Wide {
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
func kernelHas(what, kind string, missing []string, between string) []term.Cell {
	if kind == "" {
		return nil
	}
	text := what + " " + kind
	if len(missing) > 0 {
		text += " (the kernel lacks " + strings.Join(missing, between) + ")"
	}
	return []term.Cell{{Text: text}}
}

// would says what an agent that enforces would have refused.
func would(s control.Status) term.Cell {
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
		return term.Cell{Text: "nothing would have been denied"}
	}
	return term.Cell{Text: fmt.Sprintf("would have denied: %s packets, %s frames", term.Count(packets), term.Count(frames)), Style: term.Yellow}
}

// joined puts texts into a line, or more where they do not fit.
func joined(parts []term.Cell, v term.View) string {
	const between = " | "
	var b strings.Builder
	at := 0
	for i, p := range parts {
		text := plain.Text(p.Text)
		switch n := term.Columns(text); {
		case i == 0:
			at = n
		case at+len(between)+n > v.Width && !v.Wide:
			b.WriteByte('\n')
			at = n
		default:
			b.WriteString(between)
			at += len(between) + n
		}
		b.WriteString(p.Style.On(text, v.Colour))
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

func narrowTable(endpoints []control.Endpoint) *term.Table {
	t := &term.Table{Columns: []term.Column{
		term.MarkColumn, {Head: "CONTAINER", Least: 12, Cut: term.CutMiddle}, {Head: "NETWORK", Least: 8, Cut: term.CutMiddle}, {Head: "STATE"},
		{Head: "INGRESS", Right: true}, {Head: "PASSED", Right: true},
		{Head: "EGRESS", Right: true}, {Head: "PASSED", Right: true},
		{Head: "DROPS", Right: true}, {Head: "DENIED", Right: true}, {Head: "POLICY", Least: 7, Cut: term.CutEnd},
	}}
	for _, e := range endpoints {
		addEndpoint(t, e, []term.Cell{mark(e), name(e), {Text: e.Network}, state(e)},
			term.Cell{Text: term.Limit(e.Ingress.RateBPS)}, term.Cell{Text: term.Bytes(e.Ingress.Bytes)},
			term.Cell{Text: term.Limit(e.Egress.RateBPS)}, term.Cell{Text: term.Bytes(e.Egress.Bytes)},
			term.Cell{Text: term.Count(e.Ingress.Drops + e.Egress.Drops)}, term.Cell{Text: term.Count(e.Denied)},
			term.Cell{Text: policies(e.Policy, 100), Short: policies(e.Policy, 1)})
	}
	return t
}

func wideTable(endpoints []control.Endpoint) *term.Table {
	t := &term.Table{Columns: []term.Column{
		term.MarkColumn, {Head: "CONTAINER"}, {Head: "ID"}, {Head: "NETWORK"}, {Head: "BRIDGE"}, {Head: "VETH"},
		{Head: "MAC"}, {Head: "IPV4"}, {Head: "IPV6"}, {Head: "STATE"},
	}}
	for _, head := range []string{"INGRESS", "EGRESS"} {
		t.Columns = append(t.Columns, term.Column{Head: head, Right: true}, term.Column{Head: "BURST", Right: true},
			term.Column{Head: "FROM"}, term.Column{Head: "PASSED", Right: true}, term.Column{Head: "PACKETS", Right: true},
			term.Column{Head: "DROPS", Right: true})
	}
	t.Columns = append(t.Columns, term.Column{Head: "DENIED", Right: true}, term.Column{Head: "GUARD", Right: true}, term.Column{Head: "POLICY"})
	for _, e := range endpoints {
		var rest []term.Cell
		for _, d := range []control.Traffic{e.Ingress, e.Egress} {
			burst := "-"
			if d.BurstBytes > 0 {
				burst = term.Bytes(d.BurstBytes)
			}
			rest = append(rest, term.Cell{Text: term.Limit(d.RateBPS)}, term.Cell{Text: burst}, orDash(d.Source),
				term.Cell{Text: term.Bytes(d.Bytes)}, term.Cell{Text: term.Count(d.Packets)}, term.Cell{Text: term.Count(d.Drops)})
		}
		rest = append(rest, term.Cell{Text: term.Count(e.Denied)}, term.Cell{Text: term.Count(refused(e.Violations))}, term.Cell{Text: policies(e.Policy, 100)})
		addEndpoint(t, e, []term.Cell{mark(e), name(e), {Text: fmt.Sprintf("%.12s", e.ID)}, {Text: e.Network},
			orDash(e.Bridge), orDash(e.Veth), orDash(e.MAC), orDash(e.IPv4), orDash(e.IPv6), state(e)}, rest...)
	}
	return t
}

// addEndpoint adds a row: what tells an endpoint, and the rest, or why it is unmanaged.
func addEndpoint(t *term.Table, e control.Endpoint, cells []term.Cell, rest ...term.Cell) {
	r := term.Row{Cells: append(cells, rest...)}
	if e.State == control.Unmanaged {
		r = term.Row{Cells: cells, Tail: term.Cell{Text: e.Reason, Style: term.Dim}}
	}
	t.Add(r)
}

func mark(e control.Endpoint) term.Cell {
	if e.Wrong() {
		return term.Cell{Text: "!", Style: term.Red}
	}
	return term.Cell{}
}

// name names the container and those in the same network namespace.
func name(e control.Endpoint) term.Cell {
	c := term.Cell{Text: e.Container}
	if len(e.SharedBy) > 0 {
		c.Text += " (+" + strings.Join(e.SharedBy, " +") + ")"
		c.Short = fmt.Sprintf("%s (+%d)", e.Container, len(e.SharedBy))
	}
	switch {
	case e.Wrong():
		c.Style = term.Red
	case e.State == control.Unmanaged:
		c.Style = term.Dim
	}
	return c
}

func state(e control.Endpoint) term.Cell {
	switch {
	case e.State == control.Admitted && e.Missing == "":
		return term.Cell{Text: e.State}
	case e.State == control.Unmanaged:
		return term.Cell{Text: e.State, Style: term.Dim}
	}
	return term.Cell{Text: e.State, Style: term.Red}
}

func orDash(s string) term.Cell { return term.Cell{Text: cmp.Or(s, "-")} }

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
