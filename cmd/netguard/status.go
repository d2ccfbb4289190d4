package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
)

// minInterval keeps a watch from being a load.
const minInterval = 100 * time.Millisecond

func newStatus(g *globals) *cobra.Command {
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
	output, check := outputFlag(cmd, "table", "wide", "json", "yaml")
	flags.BoolVarP(&watch, "watch", "w", false, "show rates again and again, until interrupted")
	flags.DurationVar(&interval, "interval", time.Second, "`time` between two looks of --watch")
	cmd.RunE = verb(func(cmd *cobra.Command, names []string) error {
		if err := check(); err != nil {
			return err
		}
		switch {
		case flags.Changed("interval") && !watch:
			return usage("--interval needs --watch")
		case interval < minInterval:
			return usage("--interval is %v: the least is %v", interval, minInterval)
		}
		cfg, err := g.load(cmd)
		if err != nil {
			return err
		}
		to := term.ScreenOf(cmd.OutOrStdout())
		client := control.NewClient(cfg.Socket)
		ask := func(ctx context.Context) (control.Status, error) { return client.Status(ctx, names...) }
		if watch {
			w := watcher{ask: ask, output: *output, interval: interval, now: time.Now,
				screen: to, stderr: cmd.ErrOrStderr()}
			return w.run(cmd.Context())
		}
		if *output == "json" && len(names) == 0 {
			text, err := client.StatusText(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := plain.Writer(to).Write(text); err != nil {
				return fmt.Errorf("write output: %w", err)
			}
			return nil
		}
		s, err := ask(cmd.Context())
		if err != nil {
			return err
		}
		v := to.View()
		v.Wide, v.Now = *output == "wide", time.Now()
		if err := writeAnswer(to, *output, s, func() string { return statusText(s, v) }); err != nil {
			return err
		}
		if len(names) > 0 && slices.ContainsFunc(s.Endpoints, control.Endpoint.Wrong) {
			return errNotFine
		}
		return nil
	})
	return cmd
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
				names = append(names, plain.Text(name))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
