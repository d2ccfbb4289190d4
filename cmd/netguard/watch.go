package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"netguard/agent/control"
)

// What a terminal understands.
const (
	takeScreen  = "\x1b[?25l\x1b[?7l" // no cursor; what is too long for a line is cut
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
	screen   screen
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
	case w.screen.terminal:
		return w.draw(before, now)
	}
	return w.append(before, now)
}

// miss tells once that there is nothing to show, and why.
func (w *watcher) miss(err error, at time.Time) error {
	first := w.away == ""
	w.away = err.Error()
	if w.screen.terminal && !w.machine() {
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
	width, height := w.screen.size()
	v := view{wide: w.output == "wide", width: max(width, 40), colour: w.screen.colour, now: now.at}
	var b strings.Builder
	if w.away != "" {
		note(&b, "!", red, "no answer since "+w.last.at.Format(time.TimeOnly), w.away, v)
	} else {
		b.WriteString(headline(now.status, v))
	}
	t := watchTable(before, now)
	b.WriteString("\n" + t.format(v.width, true, v.colour))
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

func watchTable(before, now sample) *table {
	t := &table{columns: []column{
		markColumn, {head: "CONTAINER", least: 12, cut: cutMiddle}, {head: "NETWORK", least: 8, cut: cutMiddle}, {head: "STATE"},
		{head: "INGRESS", right: true}, {head: "LIMIT", right: true},
		{head: "EGRESS", right: true}, {head: "LIMIT", right: true},
		{head: "DROPS/s", right: true}, {head: "DENIED/s", right: true},
	}}
	flows := flows(before, now)
	for _, e := range sorted(now.status.Endpoints) {
		ingress, egress, drops, denied := "-", "-", "-", "-"
		if f, ok := flows[portOf(e)]; ok {
			ingress, egress = humanRate(f.ingress), humanRate(f.egress)
			drops, denied = humanCount(uint64(f.drops+.5)), humanCount(uint64(f.denied+.5))
		}
		t.endpoint(e, []cell{mark(e), name(e), {text: e.Network}, state(e)},
			cell{text: ingress}, cell{text: humanLimit(e.Ingress.RateBPS)},
			cell{text: egress}, cell{text: humanLimit(e.Egress.RateBPS)}, cell{text: drops}, cell{text: denied})
	}
	return t
}

// append writes a line for each endpoint, once there are rates to tell.
func (w *watcher) append(before, now sample) error {
	if before.at.IsZero() {
		return nil
	}
	t := watchTable(before, now)
	t.columns = append([]column{{head: "TIME"}}, t.columns...)
	for i := range t.rows {
		t.rows[i].cells = append([]cell{{text: now.at.Format(time.TimeOnly)}}, t.rows[i].cells...)
	}
	t.floor = w.lined
	head := w.lined == nil
	w.lined = t.widths(0)
	_, err := io.WriteString(w.screen, t.format(0, head, false))
	return err
}
