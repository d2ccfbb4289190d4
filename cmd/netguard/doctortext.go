package main

import (
	"fmt"
	"strings"

	"netguard/agent/doctor"
)

// results are how each is shown: as wide as one another, so that texts are aligned.
var results = map[doctor.Result]cell{
	doctor.OK:   {text: "ok  ", style: green},
	doctor.Warn: {text: "WARN", style: yellow},
	doctor.Fail: {text: "FAIL", style: red},
	doctor.Skip: {text: "skip", style: dim},
}

// reportText is a report for people: a line for each check, what to do below it,
// and a line that sums up.
func reportText(r doctor.Report, v view) string {
	names := 0
	for _, c := range r.Checks {
		names = max(names, columns(c.Name))
	}
	start := len("ok  ") + 2 + names + 2
	indent := strings.Repeat(" ", start)
	var b strings.Builder
	for _, c := range r.Checks {
		mark := results[c.Result]
		fmt.Fprintf(&b, "%s  %-*s  ", mark.style.on(mark.text, v.colour), names, c.Name)
		lines(&b, c.Found, start, v.width)
		if c.Remedy != "" {
			b.WriteString(indent + bold.on("->", v.colour) + " ")
			lines(&b, c.Remedy, start+3, v.width)
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
		b.WriteString(hang(printable(strings.TrimSpace(strings.ReplaceAll(line, "\t", " "))), width, indent) + "\n")
	}
}

// summary is the last line.
func summary(r doctor.Report, v view) string {
	counts := fmt.Sprintf("%d ok, %d warn, %d fail, %d skip", r.OK, r.Warn, r.Fail, r.Skip)
	switch r.Result {
	case doctor.Fail:
		return red.on("This host is not ready for netguard", v.colour) + ": " + counts + "."
	case doctor.Warn:
		return yellow.on("This host is ready for netguard, with reservations", v.colour) + ": " + counts + "."
	}
	return green.on("This host is ready for netguard", v.colour) + ": " + counts + "."
}
