package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"netguard/agent/config"
	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
	"netguard/netpolicy"
)

func newPlan(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Tell what policy files would change, changing nothing",
		Long: `Tell what would change were the files of a directory all the policy files there
are. The agent compares them, and the containers' labels, with what is in force,
for the containers that are there now. Nothing is changed: to apply the files, put
them into the agent's policy directory.

The first part is which containers close or open: a closed one is reached by, or
reaches, only what policies list. The second part is which connections change.
- is what is refused from then on (open connections are cut), + what is allowed,
~ a container that stays closed, by other policies than before.

The exit code is 1 when a file has a fault, which is shown as by validate, and 0
otherwise, whether anything changes or not.`,
		Example: `  netguard policy plan --policy-dir ./policies
  netguard policy plan        # of the agent's directory: what is not in force, of what it says

  # exit 0 if no connection is cut
  netguard policy plan --policy-dir . -o json | jq -e '.connections | all(.allowed)'`,
		Args: cobra.NoArgs,
	}
	dir := policyDirFlag(cmd)
	output, check := outputFlag(cmd, "text", "json", "yaml")
	cmd.RunE = verb(func(cmd *cobra.Command, _ []string) error {
		if err := check(); err != nil {
			return err
		}
		named := cmd.Flags().Changed("policy-dir")
		cfg, err := g.loadFor(cmd, named)
		if err != nil {
			return err
		}
		if !named {
			*dir = cfg.PolicyDir
		}
		files, err := readPolicyDir(cmd.Context(), *dir, named)
		if err != nil {
			return err
		}
		faults := append(files.faults, netpolicy.Load(files.sources).Faults()...)
		if len(faults) > 0 {
			writeFaults(cmd.ErrOrStderr(), faults)
			return errNotFine
		}
		if len(files.sources) == 0 {
			complain(cmd.ErrOrStderr(), fmt.Errorf("%s has no policy files (*.yaml, *.yml): this is what having none would change", *dir))
		}
		d, err := control.NewClient(cfg.Socket).Plan(cmd.Context(), files.sources)
		if err != nil {
			return err
		}
		to := term.ScreenOf(cmd.OutOrStdout())
		return writeAnswer(to, *output, d, func() string { return deltaText(d, to.View()) })
	})
	return cmd
}

// loadFor gives the configuration. If the user did not name the policy directory, it reads the
// file even if the user named the socket.
func (g *globals) loadFor(cmd *cobra.Command, dirNamed bool) (config.Config, error) {
	if dirNamed {
		return g.load(cmd)
	}
	cfg, err := g.read(cmd)
	if err != nil {
		return config.Config{}, err
	}
	return cfg.With(g.overrides(cmd))
}

// policyDirFlag adds the flag --policy-dir.
func policyDirFlag(cmd *cobra.Command) *string {
	dir := cmd.Flags().String("policy-dir", "", "`directory` of policy files (default: policy_dir of the configuration, else "+config.DefaultPolicyDir+")")
	cmd.MarkFlagDirname("policy-dir")
	return dir
}

// readPolicyDir reads a policy directory. If nobody named the directory, it need not exist: an
// agent does not need it either.
func readPolicyDir(ctx context.Context, dir string, named bool) (policyFiles, error) {
	var files policyFiles
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return files, nil
	case err == nil && !info.IsDir():
		return files, usage("--policy-dir is %q, which is no directory", dir)
	}
	err = files.addDir(ctx, dir)
	return files, err
}

// deltaText is what changes, for people.
func deltaText(d netpolicy.Delta, v term.View) string {
	if d.Empty() {
		return "Nothing changes.\n"
	}
	var b strings.Builder
	containers, connections := changes{title: "Containers"}, changes{title: "Connections"}
	for _, c := range d.Endpoints {
		switch {
		case len(c.Before) == 0:
			containers.add(minus, c.Sentence, v)
		case len(c.After) == 0:
			containers.add(plus, c.Sentence, v)
		default:
			containers.add(same, c.Sentence, v)
		}
	}
	signs := map[bool]term.Cell{true: plus, false: minus}
	for _, c := range d.Connections {
		connections.add(signs[c.Allowed], c.Sentence, v)
	}
	for _, c := range d.Published {
		connections.add(signs[c.Allowed], c.Sentence, v)
	}
	for _, c := range []*changes{&containers, &connections} {
		if c.lines.Len() > 0 {
			b.WriteString(term.Bold.On(c.title, v.Colour) + "\n" + c.lines.String() + "\n")
		}
	}
	if d.Truncated {
		b.WriteString(term.Wrap("! There is too much to compare: more connections may change than are listed. The list of containers is complete. To see all connections, put the files in force in steps, and plan each step.", v.Width, "") + "\n")
	}
	fmt.Fprintf(&b, "%s: %s.\n", containers.title, containers.count(minus, plus, same))
	fmt.Fprintf(&b, "%s: %s.\n", connections.title, connections.count(minus, plus))
	return b.String()
}

// The signs of changes.
var (
	minus = term.Cell{Text: "-", Style: term.Red}
	plus  = term.Cell{Text: "+", Style: term.Green}
	same  = term.Cell{Text: "~", Style: term.Yellow}
)

// changes are lines of one kind.
type changes struct {
	title string
	lines strings.Builder
	of    map[string]int // by sign
}

func (c *changes) add(sign term.Cell, sentence string, v term.View) {
	const indent = "  "
	c.lines.WriteString(sign.Style.On(sign.Text, v.Colour) + " " + term.Hang(plain.Text(sentence), v.Width, indent) + "\n")
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[sign.Text]++
}

func (c *changes) count(signs ...term.Cell) string {
	texts := make([]string, len(signs))
	for i, s := range signs {
		texts[i] = fmt.Sprintf("%s %d", s.Text, c.of[s.Text])
	}
	return strings.Join(texts, ", ")
}
