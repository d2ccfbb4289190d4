package main

import (
	"fmt"
	"slices"
	"strings"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
)

// notes are what is wrong and what to do about it, each with whom it is about.
func notes(s control.Status, endpoints []control.Endpoint, v term.View) string {
	var b strings.Builder
	for _, finding := range s.Findings {
		note(&b, "!", term.Red, "the host", finding, v)
	}
	did := "refused"
	if s.Mode == control.ModeMonitor {
		did = "let pass, and would be refused"
	}
	for _, p := range s.UnknownPorts {
		if p.Withheld.Total() > 0 {
			note(&b, "-", term.Yellow, fmt.Sprintf("port %s of bridge %s", p.Port, p.Bridge), withheld(p.Withheld, did), v)
		}
	}
	for _, e := range endpoints {
		about := fmt.Sprintf("%s (%s)", e.Container, e.Network)
		// The reason of an unmanaged one stands in its row.
		if e.Wrong() && e.Reason != "" && e.State != control.Unmanaged && !slices.Contains(e.Findings, e.Reason) {
			note(&b, "!", term.Red, about, e.State+": "+e.Reason, v)
		} else if e.Wrong() && e.Reason == "" && len(e.Findings) == 0 {
			note(&b, "!", term.Red, about, e.State, v)
		}
		for _, finding := range e.Findings {
			note(&b, "!", term.Red, about, finding, v)
		}
		if n := refused(e.Violations); n > 0 {
			verb := "refused"
			if s.Mode == control.ModeMonitor {
				verb = "would have refused"
			}
			note(&b, "-", term.Yellow, about, fmt.Sprintf("the guard "+verb+" %s frames that are not its own: %s", term.Count(n), kinds(e.Violations)), v)
		}
		if e.State == control.Quarantined && e.Withheld.Total() > 0 {
			note(&b, "-", term.Yellow, about, withheld(e.Withheld, did), v)
		}
	}
	return b.String()
}

// withheld is what a port sent and was to receive while it was not admitted.
func withheld(w control.Withheld, did string) string {
	return fmt.Sprintf("not admitted: %s frames that it sent and %s for it were %s", term.Count(w.Sent), term.Count(w.Received), did)
}

// note writes one note, within the width. It keeps the text's own line breaks, so that people
// can read lists of faults with file and line.
func note(b *strings.Builder, mark string, style term.Style, about, text string, v term.View) {
	const indent = "    "
	width := v.Width
	if v.Wide {
		width = max(width, term.UsualWidth)
	}
	about = plain.Text(about) + ":"
	first := true
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		line = plain.Text(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")))
		if line == "" {
			continue
		}
		if !first {
			b.WriteString(indent + term.Wrap(line, width-len(indent), indent) + "\n")
			continue
		}
		first = false
		wrapped := term.Wrap(about+" "+line, width-2, indent)
		// The style is for about alone. If a line break falls into about, there is none.
		if rest, ok := strings.CutPrefix(wrapped, about); ok {
			wrapped = style.On(about, v.Colour) + rest
		}
		b.WriteString(style.On(mark, v.Colour) + " " + wrapped + "\n")
	}
}

func refused(v control.Violations) uint64 {
	return v.MAC + v.ARP + v.IP + v.ND + v.Ethertype + v.DHCP + v.Storm + v.Connections + v.Checksum + v.Fragments
}

func kinds(v control.Violations) string {
	var texts []string
	for _, k := range []struct {
		name string
		n    uint64
	}{{"MAC", v.MAC}, {"ARP", v.ARP}, {"IP", v.IP}, {"ND", v.ND}, {"ethertype", v.Ethertype}, {"DHCP", v.DHCP}, {"storm", v.Storm}, {"connections", v.Connections}, {"checksum", v.Checksum}, {"fragments", v.Fragments}} {
		if k.n > 0 {
			texts = append(texts, term.Count(k.n)+" "+k.name)
		}
	}
	return strings.Join(texts, ", ")
}
