package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"netguard/agent/control"
)

var outputs = []string{"table", "wide", "json", "yaml"}

// minInterval keeps a watch from being a load.
const minInterval = 100 * time.Millisecond

func newStatus(g *globals) *cobra.Command {
	var output string
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status [CONTAINER...]",
		Short: "Show what is enforced, verified against the kernel",
		Long: `Show what is enforced for each container on each network, read from the kernel
now, and what is wrong together with its remedy. Ingress and egress are as the
container sees them.

A container is named by its name or the beginning of its id; one that shares its
network with another (--network container:NAME) is found by its own name too.
With names, the exit code is 1 when one of them is not as declared: for scripts.

The table has a ! before what is wrong. INGRESS and EGRESS are the limits, PASSED
what went through, DROPS the frames that did not fit the queue of a limit, DENIED
the packets that policies refused, POLICY who isolates it (open: nobody).
-o wide shows all and cuts nothing. -o json is stable: fields are added, never
renamed. --watch shows rates in place of totals.`,
		Example: `  netguard status
  netguard status shop-db-1 && echo "as declared"
  netguard status -o json | jq -r '.endpoints[] | select(.state != "admitted") | .container'
  netguard status --watch --interval 2s        # rates, live
  netguard status --watch -o json              # one document a line`,
		ValidArgsFunction: g.completeContainers,
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", outputs[0], strings.Join(outputs, ", "))
	flags.BoolVarP(&watch, "watch", "w", false, "show rates again and again, until interrupted")
	flags.DurationVar(&interval, "interval", time.Second, "`time` between two looks of --watch")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = verb(func(cmd *cobra.Command, names []string) error {
		switch {
		case !slices.Contains(outputs, output):
			return usage("--output is %q: it is one of %s", output, strings.Join(outputs, ", "))
		case flags.Changed("interval") && !watch:
			return usage("--interval needs --watch")
		case interval < minInterval:
			return usage("--interval is %v: the least is %v", interval, minInterval)
		}
		cfg, err := g.load(cmd)
		if err != nil {
			return err
		}
		client := control.NewClient(cfg.Socket)
		ask := func(ctx context.Context) (control.Status, error) { return client.Status(ctx, names...) }
		if watch {
			w := watcher{ask: ask, output: output, interval: interval, now: time.Now,
				screen: screenOf(cmd.OutOrStdout()), stderr: cmd.ErrOrStderr()}
			return w.run(cmd.Context())
		}
		s, err := ask(cmd.Context())
		if err != nil {
			return err
		}
		if err := writeStatus(screenOf(cmd.OutOrStdout()), output, s, time.Now()); err != nil {
			return err
		}
		if len(names) > 0 && slices.ContainsFunc(s.Endpoints, control.Endpoint.Wrong) {
			return errNotFine
		}
		return nil
	})
	return cmd
}

func writeStatus(to screen, output string, s control.Status, now time.Time) error {
	switch output {
	case "json":
		return writeJSON(to, s, "  ")
	case "yaml":
		return writeYAML(to, s)
	}
	_, err := io.WriteString(to, statusText(s, view{wide: output == "wide", width: to.width(), colour: to.colour, now: now}))
	return err
}

func writeJSON(to io.Writer, what any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(what)
	if err == nil {
		_, err = io.WriteString(to, escaped(text.String()))
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func writeYAML(to io.Writer, what any) error {
	text, err := yaml.Dump(what, yaml.WithIndent(2))
	if err == nil && bytes.ContainsFunc(text, hostile) {
		text, err = yaml.Dump(what, yaml.WithIndent(2), yaml.WithUnicode(false))
	}
	if err == nil {
		_, err = to.Write(text)
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// completeContainers offers the names that the agent knows, for a shell.
func (g *globals) completeContainers(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	cfg, err := g.load(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := control.NewClient(cfg.Socket).Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, e := range s.Endpoints {
		for _, name := range append([]string{e.Container}, e.SharedBy...) {
			if !slices.Contains(given, name) {
				names = append(names, printable(name))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
