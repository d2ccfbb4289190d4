package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"netguard/internal/label"
	"netguard/netpolicy"
)

func newLabels() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "labels [LABEL...]",
		Short: "Tell which labels containers can have, and what they mean",
		Long: `Tell which labels containers can have, and what they mean: those that are named, or
all. A container with a label that begins with "netguard." and is none of these is
quarantined. It works without an agent.`,
		Example: `  netguard labels
  netguard labels netguard.egress.rate
  netguard labels -o json | jq -r '.[].label'`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return label.Keys(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	output, check := outputFlag(cmd, "text", "json", "yaml")
	cmd.RunE = verb(func(cmd *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		all, err := labelsOf(args)
		if err != nil {
			return err
		}
		return writeAnswer(cmd.OutOrStdout(), *output, all, func() string { return labelsText(all) })
	})
	return cmd
}

// labelsOf gives the labels of some keys, all of none.
func labelsOf(keys []string) ([]label.Label, error) {
	if len(keys) == 0 {
		return label.All, nil
	}
	all := make([]label.Label, 0, len(keys))
	for _, key := range keys {
		l, ok := label.Find(key)
		if near := netpolicy.Nearest(key, label.Keys()); !ok && near != "" {
			return nil, usage("there is no label %q: did you mean %s?", key, near)
		}
		if !ok {
			return nil, usage("there is no label %q: the labels are %s", key, strings.Join(label.Keys(), ", "))
		}
		all = append(all, l)
	}
	return all, nil
}

func labelsText(all []label.Label) string {
	var b strings.Builder
	for i, l := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s=%s\n", l.Key, l.Value)
		for _, line := range []string{l.Meaning, "value: " + l.Form} {
			b.WriteString("    " + strings.ReplaceAll(line, "`", "") + "\n")
		}
		if l.PerNetwork {
			fmt.Fprintf(&b, "    for one network alone: %s\n", l.ForNetwork("<name>"))
		}
		if l.Opens {
			b.WriteString("    An image's does not count: the container's creator has to set it.\n")
		}
	}
	return b.String()
}
