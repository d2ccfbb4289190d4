package main

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// newPolicy is the heading over the verbs about policies.
func newPolicy(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check policy files, ask who may reach whom, and look before applying",
		Long: `Policies say who may talk to whom: files in the agent's policy directory, and the
labels netguard.ingress and netguard.egress of containers. An agent reads the
files again when they change. These commands look before you leap: validate is
about files alone, explain about what is in force, plan about what files would
change. None of them changes anything.`,
		Example: `  netguard policy validate db.yaml              # faults, with their line
  netguard policy plan --policy-dir ./policies  # what these files would change
  netguard policy explain web db tcp/5432       # may web reach db, and why`,
	}
	cmd.AddCommand(newValidate(), newExplain(g), newPlan(g))
	return cmd
}

var textOutputs = []string{"text", "json", "yaml"}

// textOutput adds the flag --output, and gives what checks it.
func textOutput(cmd *cobra.Command) (output *string, check func() error) {
	output = cmd.Flags().StringP("output", "o", textOutputs[0], strings.Join(textOutputs, ", "))
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(textOutputs, cobra.ShellCompDirectiveNoFileComp))
	return output, func() error {
		if !slices.Contains(textOutputs, *output) {
			return usage("--output is %q: it is one of %s", *output, strings.Join(textOutputs, ", "))
		}
		return nil
	}
}

// writeAnswer writes an answer as the flag --output says; text is how people read
// it.
func writeAnswer(to io.Writer, output string, answer any, text func() string) error {
	switch output {
	case "json":
		return writeJSON(to, answer, "  ")
	case "yaml":
		return writeYAML(to, answer)
	}
	_, err := io.WriteString(to, text())
	return err
}
