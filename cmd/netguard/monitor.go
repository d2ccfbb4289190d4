package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
)

// again is how long monitor waits for an agent that is away.
const again = time.Second

func newMonitor(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "monitor [CONTAINER...]",
		Short: "Show what is refused, live: violations and denied connections, by name",
		Long: `Show what is refused from now on, until interrupted: frames with which a container
claims to be somebody else (violations, refused by the guard), and connections that
policies deny. Nothing is changed by looking.

With names, only what is about one of these containers, at either end: by name, or
by the beginning of an id.

A violation has its kind (mac, arp, ip, nd, dhcp, ethertype, storm, connections,
checksum, fragments), how many frames
there were since the line before, which is exact, and what one of them claimed.
There is a line for each container, network and kind within a second, and one a
second while it goes on.

A denied connection has both ends, the service, and whose policies refuse it: egress
are the sender's, ingress the receiver's. A few packets a second are shown;
` + "`netguard status`" + ` counts them all, and ` + "`netguard policy explain`" + ` tells why. What
lasts from before a policy was changed, and is cut, is not shown.

-o json is one document a line, and stable: fields are added, never renamed. Events
that are not read in time are dropped, and a line says how many.`,
		Example: `  netguard monitor
  netguard monitor shop-db-1                  # what it does, and who tries to reach it
  netguard monitor -o json | jq -r 'select(.type == "denied") | "\(.to.container) \(.service)"'`,
		ValidArgsFunction: g.completeContainers,
	}
	output, check := outputFlag(cmd, "table", "json")
	cmd.RunE = verb(func(cmd *cobra.Command, names []string) error {
		if err := check(); err != nil {
			return err
		}
		cfg, err := g.load(cmd)
		if err != nil {
			return err
		}
		client := control.NewClient(cfg.Socket)
		m := monitor{output: *output, screen: term.ScreenOf(cmd.OutOrStdout()), stderr: cmd.ErrOrStderr(), wait: again, zone: time.Local,
			watch: func(ctx context.Context, ready func(), f func(control.Event) error) error {
				return client.Events(ctx, names, ready, f)
			},
			findings: func(ctx context.Context) []string {
				s, err := client.Status(ctx)
				if err != nil {
					return nil // the watch reports this error too
				}
				return s.Findings
			}}
		return m.run(cmd.Context())
	})
	return cmd
}

// monitor shows events.
type monitor struct {
	watch func(ctx context.Context, ready func(), f func(control.Event) error) error
	// findings are what status says of the host: monitor shows nothing of what is not guarded.
	findings func(ctx context.Context) []string
	output   string
	screen   term.Screen
	stderr   io.Writer
	wait     time.Duration // before an agent that is away is asked again
	zone     *time.Location

	lined []int // the widths of the lines so far
	quiet bool  // it was said that the agent is away
}

// writeError is an error of the output: asking the agent again cannot mend it.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// run shows until ctx ends, which is no error. An agent that answered once may
// restart meanwhile.
func (m *monitor) run(ctx context.Context) error {
	answered := false
	ready := func() {
		if !answered || m.quiet { // there may be nothing else to see for long
			fmt.Fprintln(m.stderr, "netguard: watching; Ctrl-C ends it")
		}
		if !answered && m.findings != nil {
			for _, f := range m.findings(ctx) {
				fmt.Fprintln(m.stderr, "netguard: "+plain.Text(f))
			}
		}
		answered, m.quiet = true, false
	}
	for {
		err := m.watch(ctx, ready, m.show)
		var write writeError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &write):
			return write.error
		case !answered, !errors.Is(err, control.ErrUnreachable) && !errors.Is(err, control.ErrUnknownContainer):
			return err
		}
		if !m.quiet {
			complain(m.stderr, fmt.Errorf("%w; trying again", err))
			m.quiet = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.wait):
		}
	}
}

func (m *monitor) show(e control.Event) error {
	var err error
	if m.output == "json" {
		err = writeJSON(m.screen, e, "")
	} else {
		_, err = io.WriteString(m.screen, m.line(e))
	}
	if err != nil {
		return writeError{err}
	}
	return nil
}

// Names are cut to these columns on a terminal, so that the rest has room.
const mostContainer, mostNetwork = 24, 16

// line is an event for people, below the head the first time.
func (m *monitor) line(e control.Event) string {
	t := &term.Table{Floor: m.lined, Columns: []term.Column{{Head: "TIME"}, {Head: "CONTAINER"}, {Head: "NETWORK"}, {Head: "WHAT"},
		{Head: "COUNT", Right: true}, {Head: "DETAIL"}}}
	head := m.lined == nil
	if head {
		t.Floor = []int{len(time.TimeOnly), 16, 10, len("ethertype"), 6}
	}
	container, network := plain.Text(e.Container), plain.Text(e.Network)
	if m.screen.Terminal {
		container, network = term.CutMiddle(container, mostContainer), term.CutMiddle(network, mostNetwork)
	}
	what := term.Cell{Text: e.Type, Style: term.Yellow}
	if e.Type == control.EventWithheld && e.Container == "" {
		container, network = "(unknown port)", ""
	}
	if e.Type == control.EventViolation {
		what = term.Cell{Text: e.Kind, Style: term.Red}
	}
	if e.Mode == control.ModeMonitor {
		what.Style = term.Dim
	}
	t.Add(term.Row{Cells: []term.Cell{{Text: e.Time.In(m.zone).Format(time.TimeOnly)}, {Text: container}, {Text: network}, what,
		{Text: strconv.FormatUint(e.Count, 10)}}, Tail: term.Cell{Text: detail(e)}})
	m.lined = t.Widths(0) // columns stay as wide as they once were
	return t.Format(0, head, m.screen.Colour)
}

// detail is an event in words.
func detail(e control.Event) string {
	passed := e.Mode == control.ModeMonitor
	switch e.Type {
	case control.EventViolation:
		who := join(" at ", e.ClaimedIP, e.ClaimedMAC)
		if who != "" {
			who = "claims to be " + who
		}
		text := cmp.Or(join(", ", who, e.What), "no frame was seen in time")
		if passed {
			text += "; would be denied"
		}
		return text
	case control.EventDenied:
		by := e.Direction
		if len(e.Policies) > 0 {
			by += " (" + strings.Join(e.Policies, ", ") + ")"
		}
		verb := "refused by"
		if passed {
			verb = "would be denied by"
		}
		text := fmt.Sprintf("%s -> %s %s, %s %s", peerText(e.From), peerText(e.To), e.Service, verb, by)
		if len(e.Published) > 0 {
			text += "; docker-proxy comes as the host, for who asks for its published port " + strings.Join(e.Published, ", ")
		}
		return text
	case control.EventWithheld:
		verb := "refused"
		if passed {
			verb = "would be denied"
		}
		way := "sent by"
		if e.Direction == "ingress" {
			way = "for"
		}
		return fmt.Sprintf("%s port %s of bridge %s, which is not admitted: %s", way, plain.Text(e.Veth), plain.Text(e.Bridge), verb)
	case control.EventLost:
		return "events that came too fast to be shown"
	}
	return "an event of a newer agent: -o json shows it"
}

// join joins what is not empty.
func join(by string, texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), by)
}

func peerText(p *control.Peer) string {
	switch {
	case p == nil:
		return "?"
	case p.Container != "":
		return p.Container + " (" + p.Address + ")"
	case p.Entity == "host":
		return "host (" + p.Address + ")"
	}
	return p.Address
}
