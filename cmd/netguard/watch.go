package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
)

// What a terminal understands.
const (
	takeScreen  = "\x1b[?25l\x1b[?7l" // no cursor; lines that are too long are cut
	giveScreen  = "\x1b[?7h\x1b[?25h"
	clearScreen = "\x1b[H\x1b[2J"
	home        = "\x1b[H"
	clearLine   = "\x1b[K" // to its end
	clearBelow  = "\x1b[J"
)

// watcher shows the status again and again.
type watcher struct {
	ask      func(context.Context) (control.Status, error)
	output   string
	interval time.Duration
	now      func() time.Time
	screen   term.Screen
	stderr   io.Writer

	last  sample // none before the first
	away  string // why the agent does not answer; "" if it does
	drawn bool
	lined []int // the widths of the lines that were appended
}

// run shows until ctx ends, which is no error. An agent that answered once may
// restart meanwhile: its rules stay, and so does the watch.
func (w *watcher) run(ctx context.Context) (err error) {
	defer func() {
		if w.drawn {
			_, last := io.WriteString(w.screen, giveScreen)
			err = errors.Join(err, last)
		}
	}()
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for {
		if err := w.look(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (w *watcher) look(ctx context.Context) error {
	s, err := w.ask(ctx)
	now := sample{w.now(), s}
	switch {
	case err == nil:
		w.away = ""
	case ctx.Err() != nil || w.last.at.IsZero():
		return err
	case errors.Is(err, control.ErrUnreachable) || errors.Is(err, control.ErrUnknownContainer):
		// Containers are replaced as well.
		return w.miss(err, now.at)
	default:
		return err
	}
	before := w.last
	w.last = now
	switch {
	case w.output == "json":
		return writeJSON(w.screen, s, "")
	case w.output == "yaml":
		if _, err := io.WriteString(w.screen, "---\n"); err != nil {
			return err
		}
		return writeYAML(w.screen, s)
	case w.screen.Terminal:
		return w.draw(before, now)
	}
	return w.append(before, now)
}

// miss tells once that there is nothing to show, and why.
func (w *watcher) miss(err error, at time.Time) error {
	first := w.away == ""
	w.away = err.Error()
	if w.screen.Terminal && !w.machine() {
		return w.draw(sample{}, sample{at: at, status: w.last.status})
	}
	if !first {
		return nil
	}
	complain(w.stderr, fmt.Errorf("%w; trying again", err))
	return nil
}

func (w *watcher) machine() bool { return w.output == "json" || w.output == "yaml" }

// draw puts one frame over the one before.
func (w *watcher) draw(before, now sample) error {
	width, height := w.screen.Size()
	v := term.View{Wide: w.output == "wide", Width: max(width, 40), Colour: w.screen.Colour, Now: now.at}
	var b strings.Builder
	if w.away != "" {
		note(&b, "!", term.Red, "no answer since "+w.last.at.Format(time.TimeOnly), w.away, v)
	} else {
		b.WriteString(headline(now.status, v))
	}
	t := watchTable(before, now)
	b.WriteString("\n" + t.Format(v.Width, true, v.Colour))
	if notes := notes(now.status, sorted(now.status.Endpoints), v); notes != "" && w.away == "" {
		b.WriteString("\n" + notes)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	// The last line stays free, or the terminal would scroll.
	if most := max(height-1, 3); len(lines) > most {
		more := len(lines) - most + 1
		lines = append(lines[:most-1], fmt.Sprintf("... %d more lines: make the window higher, or name containers", more))
	}
	start := home
	if !w.drawn {
		w.drawn, start = true, takeScreen+clearScreen
	}
	_, err := io.WriteString(w.screen, start+strings.Join(lines, clearLine+"\n")+clearLine+"\n"+clearBelow)
	return err
}

func watchTable(before, now sample) *term.Table {
	t := &term.Table{Columns: []term.Column{
		term.MarkColumn, {Head: "CONTAINER", Least: 12, Cut: term.CutMiddle}, {Head: "NETWORK", Least: 8, Cut: term.CutMiddle}, {Head: "STATE"},
		{Head: "INGRESS", Right: true}, {Head: "LIMIT", Right: true},
		{Head: "EGRESS", Right: true}, {Head: "LIMIT", Right: true},
		{Head: "DROPS/s", Right: true}, {Head: "DENIED/s", Right: true},
	}}
	flows := flows(before, now)
	for _, e := range sorted(now.status.Endpoints) {
		ingress, egress, drops, denied := "-", "-", "-", "-"
		if f, ok := flows[portOf(e)]; ok {
			ingress, egress = term.Rate(f.ingress), term.Rate(f.egress)
			drops, denied = term.Count(uint64(f.drops+.5)), term.Count(uint64(f.denied+.5))
		}
		addEndpoint(t, e, []term.Cell{mark(e), name(e), {Text: e.Network}, state(e)},
			term.Cell{Text: ingress}, term.Cell{Text: term.Limit(e.Ingress.RateBPS)},
			term.Cell{Text: egress}, term.Cell{Text: term.Limit(e.Egress.RateBPS)}, term.Cell{Text: drops}, term.Cell{Text: denied})
	}
	return t
}

// append writes a line for each endpoint, once there are rates to tell.
func (w *watcher) append(before, now sample) error {
	if before.at.IsZero() {
		return nil
	}
	t := watchTable(before, now)
	t.Columns = append([]term.Column{{Head: "TIME"}}, t.Columns...)
	for i := range t.Rows {
		t.Rows[i].Cells = append([]term.Cell{{Text: now.at.Format(time.TimeOnly)}}, t.Rows[i].Cells...)
	}
	t.Floor = w.lined
	head := w.lined == nil
	w.lined = t.Widths(0)
	_, err := io.WriteString(w.screen, t.Format(0, head, false))
	return err
}
