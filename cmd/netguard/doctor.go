package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"netguard/agent/config"
	"netguard/agent/doctor"
	"netguard/cmd/netguard/term"
)

func newDoctor(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this host supports, what conflicts, and the remedy",
		Long: `Tell what this host supports, what conflicts, and the remedy: privileges, kernel,
bandwidth limits, the guard of ports, policies, Docker, other programs, the agent,
the configuration and the policy files. It works with or without an agent.

Nothing is changed: what has to be tried is tried in a network namespace made for
that, which is gone afterwards. Run it as root, where the agent is to run.

ok is fine; warn works, but not all of it, or not as one might think; fail keeps
netguard from what it is for; skip could not be told. The exit code is 1 when
something failed, and 0 otherwise.`,
		Example: `  netguard doctor
  netguard doctor -o json | jq -r '.checks[] | select(.result != "ok") | "\(.name): \(.remedy)"'`,
		Args: cobra.NoArgs,
	}
	output, check := outputFlag(cmd, "table", "json", "yaml")
	dir := policyDirFlag(cmd)
	cmd.RunE = verb(func(cmd *cobra.Command, _ []string) error {
		if err := check(); err != nil {
			return err
		}
		cfg, file, err := g.examine(cmd)
		if err != nil {
			return err
		}
		named := cmd.Flags().Changed("policy-dir")
		if !named {
			*dir = cfg.PolicyDir
		}
		policies, err := examinePolicies(cmd.Context(), *dir, named)
		if err != nil {
			return err
		}
		facts, err := doctor.Gather(cmd.Context(), buildVersion().version, cfg)
		if err != nil {
			return err
		}
		facts.Config, facts.Policies = file, policies
		report := doctor.Judge(facts)
		to := term.ScreenOf(cmd.OutOrStdout())
		if err := writeAnswer(to, *output, report, func() string { return reportText(report, to.View()) }); err != nil {
			return err
		}
		if report.Result == doctor.Fail {
			return errNotFine
		}
		return nil
	})
	return cmd
}

// examine reads the configuration. If the file has faults, it returns them for the report, and
// the defaults as the configuration.
func (g *globals) examine(cmd *cobra.Command) (config.Config, doctor.Files, error) {
	file := doctor.Files{Path: g.config}
	if _, err := os.Stat(g.config); errors.Is(err, fs.ErrNotExist) && !g.explicit(cmd) {
		file.Absent = true
	}
	cfg, err := config.Load(g.config, g.explicit(cmd))
	if err != nil {
		file.Faults = strings.Split(err.Error(), "\n")
		cfg = config.Default()
	}
	cfg, err = cfg.With(g.overrides(cmd))
	return cfg, file, err
}

// examinePolicies reads the policy files. It gives an error if dir is no directory, or if ctx
// ended.
func examinePolicies(ctx context.Context, dir string, named bool) (doctor.Files, error) {
	out := doctor.Files{Path: dir}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !named {
		out.Absent = true
		return out, nil
	}
	files, err := readPolicyDir(ctx, dir, named)
	if err != nil {
		return out, err
	}
	v := validate(files)
	out.Count = strings.TrimSpace(v.summary())
	for _, f := range v.faults() {
		out.Faults = append(out.Faults, f.Error())
	}
	return out, nil
}
