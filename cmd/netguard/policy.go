package main

import "github.com/spf13/cobra"

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
