package main

import (
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"netguard/agent"
	"netguard/agent/config"
	"netguard/agent/control"
)

var modes = []string{control.ModeEnforce, control.ModeMonitor}

func newAgent(g *globals) *cobra.Command {
	var metrics, mode string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent that enforces, until it is told to end",
		Long: `Run the agent: it watches Docker and the kernel and brings the kernel to what
labels, policies and the configuration declare. It runs in the network namespace
of dockerd, as root. Flags win over the configuration file.

With --mode monitor nothing is refused. To change the mode, restart it with the other
one: the kernel goes from one to the other at once.

SIGTERM or SIGINT ends it; what is enforced stays enforced, and the next agent
adopts it.`,
		Example: `  systemctl enable --now netguard                       # the usual way
  netguard agent                                        # in a terminal
  netguard agent --docker-host unix:///run/docker.sock --metrics ""`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	policyDir := policyDirFlag(cmd)
	flags.StringVar(&metrics, "metrics", "", "`address` for Prometheus, \"\" for none (default: metrics of the configuration, else "+config.DefaultMetrics+")")
	flags.StringVar(&mode, "mode", modes[0], "enforce, or monitor: what the guard and policies would refuse is counted, logged and passes; bandwidth limits stay in force")
	cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions(modes, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = verb(func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(modes, mode) {
			return usage("--mode is %q: it is %s", mode, strings.Join(modes, " or "))
		}
		overrides := g.overrides(cmd)
		if flags.Changed("policy-dir") {
			dir := absolute(*policyDir)
			overrides.PolicyDir = &dir
		}
		if flags.Changed("metrics") {
			overrides.Metrics = &metrics
		}
		// The agent reads the file itself, and again when it changes. Reading it here tells a
		// fault in the file from a fault of the host.
		if _, err := g.read(cmd); err != nil {
			return err
		}
		if os.Getenv("GOGC") == "" {
			// The agent rests most of the time, beside containers that need the memory more.
			debug.SetGCPercent(50)
		}
		return agent.Run(cmd.Context(), agent.Options{
			ConfigPath: absolute(g.config), ConfigExplicit: g.explicit(cmd), Overrides: overrides,
			Mode: mode, Version: buildVersion().version, Log: cmd.ErrOrStderr(),
		})
	})
	return cmd
}
