package main

import (
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"netguard/agent/config"
)

// newRoot builds the command line; each verb has a file of its own.
func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "netguard",
		Short: "Least privilege for the containers of a plain Docker host",
		Long: `netguard runs beside dockerd and limits what containers can do to each other
and to the host's uplink, as their labels and the operator's files say.

The agent enforces; the other commands ask it over its socket, as root.

Exit codes: 0 fine; 1 what was asked about is not fine; 2 wrong usage or
configuration; 3 no agent answers.`,
		Example: `  # on a container: at most 50 Mbit/s in and 10 Mbit/s out
  docker run -d --label netguard.ingress.rate=50mbit --label netguard.egress.rate=10mbit nginx

  systemctl start netguard      # or, in a terminal: netguard agent
  netguard status               # what is enforced, and what is wrong

  netguard policy explain web db tcp/5432       # may web reach db, and why`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	g := &globals{}
	flags := root.PersistentFlags()
	flags.StringVar(&g.config, "config", config.DefaultPath, "configuration `file`")
	flags.StringVar(&g.dockerHost, "docker-host", "", "`URL` of the Docker engine (default: docker_host of the configuration, else unix:///var/run/docker.sock)")
	flags.StringVar(&g.socket, "socket", "", "`path` of the agent's socket (default: socket of the configuration, else "+config.DefaultSocket+")")
	root.AddCommand(newAgent(g), newStatus(g), newPolicy(g), newMonitor(g), newDoctor(g), newLabels(), newCleanup(g), newVersion())
	root.SetOut(stdout) // the completion verbs keep what they find here
	root.SetErr(stderr)
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch {
		case c.Name() == "help":
			c.Run, c.RunE = nil, verb(help)
		case !c.Runnable(): // a heading over other verbs; cobra would take any word for a wish for help
			c.Args, c.RunE = cobra.ArbitraryArgs, verb(heading)
		}
	}
	return root
}

func help(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return usage("no help about %q", strings.Join(args, " "))
	}
	about.InitDefaultHelpFlag()
	return about.Help()
}

func heading(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}

// globals are the flags of every command.
type globals struct {
	config, dockerHost, socket string
}

// overrides are the flags that were given.
func (g *globals) overrides(cmd *cobra.Command) config.Overrides {
	given := func(name string, value *string) *string {
		if cmd.Flags().Changed(name) {
			return value
		}
		return nil
	}
	g.socket = absolute(g.socket)
	return config.Overrides{Socket: given("socket", &g.socket), DockerHost: given("docker-host", &g.dockerHost)}
}

// absolute makes a path of the command line absolute, so that it means the same everywhere.
// Paths in the configuration are absolute already: nobody could tell what they are relative to.
func absolute(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path // it is refused
	}
	if strings.HasSuffix(path, "/") {
		abs += "/" // Abs removed it; it tells a directory from a file
	}
	return abs
}

// explicit tells whether the configuration file was named, so that it must be there.
func (g *globals) explicit(cmd *cobra.Command) bool { return cmd.Flags().Changed("config") }

// load gives the configuration for a command that asks the agent. If the user named a socket,
// that is enough, and load does not read the file: a fault in it must not keep anybody from
// looking.
func (g *globals) load(cmd *cobra.Command) (config.Config, error) {
	overrides := g.overrides(cmd)
	if overrides.Socket != nil {
		return config.Default().With(overrides)
	}
	cfg, err := g.read(cmd)
	if err != nil {
		return config.Config{}, err
	}
	return cfg.With(overrides)
}

func (g *globals) read(cmd *cobra.Command) (config.Config, error) {
	cfg, err := config.Load(g.config, g.explicit(cmd))
	if err != nil {
		return config.Config{}, &kind{err, errConfig}
	}
	return cfg, nil
}
