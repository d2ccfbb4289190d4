package main

import (
	"fmt"
	"strings"

	"netguard/agent/doctor"
	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
)

// results are how each is shown: as wide as one another, so that texts are aligned.
var results = map[doctor.Result]term.Cell{
	doctor.OK:   {Text: "ok  ", Style: term.Green},
	doctor.Warn: {Text: "WARN", Style: term.Yellow},
	doctor.Fail: {Text: "FAIL", Style: term.Red},
	doctor.Skip: {Text: "skip", Style: term.Dim},
}

// reportText is a report for people: a line for each check, what to do below it,
// and a line that sums up.
func reportText(r doctor.Report, v term.View) string {
	names := 0
	for _, c := range r.Checks {
		names = max(names, term.Columns(c.Name))
	}
	start := len("ok  ") + 2 + names + 2
	indent := strings.Repeat(" ", start)
	var b strings.Builder
	for _, c := range r.Checks {
		mark := results[c.Result]
		fmt.Fprintf(&b, "%s  %-*s  ", mark.Style.On(mark.Text, v.Colour), names, c.Name)
		lines(&b, c.Found, start, v.Width)
		if c.Remedy != "" {
			b.WriteString(indent + term.Bold.On("->", v.Colour) + " ")
			lines(&b, c.Remedy, start+3, v.Width)
		}
	}
	b.WriteString("\n" + summary(r, v) + "\n")
	return b.String()
}

// lines writes a text that starts at a column, with its own line breaks and those
// that the width needs. It may quote a stranger.
func lines(b *strings.Builder, text string, start, width int) {
	indent := strings.Repeat(" ", start)
	first := true
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if !first {
			b.WriteString(indent)
		}
		first = false
		b.WriteString(term.Hang(plain.Text(strings.TrimSpace(strings.ReplaceAll(line, "\t", " "))), width, indent) + "\n")
	}
}

// summary is the last line.
func summary(r doctor.Report, v term.View) string {
	counts := fmt.Sprintf("%d ok, %d warn, %d fail, %d skip", r.OK, r.Warn, r.Fail, r.Skip)
	switch r.Result {
	case doctor.Fail:
		return term.Red.On("This host is not ready for netguard", v.Colour) + ": " + counts + "."
	case doctor.Warn:
		return term.Yellow.On("This host is ready for netguard, with reservations", v.Colour) + ": " + counts + "."
	}
	return term.Green.On("This host is ready for netguard", v.Colour) + ": " + counts + "."
}
