package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"netguard/netpolicy"
)

func newValidate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Find the faults of policy files, without an agent",
		Long: `Find the faults of policy files. Each fault is one line on the standard error,
with file, line, column, and what was meant. All files that are named are looked
at together, since the names of policies are unique across files.

A directory stands for the files in it that an agent would read there (*.yaml and
*.yml, not those that start with a dot), - for the standard input. No agent is
asked: use this before a commit, and in tests.

The exit code is 1 when there is a fault, and 0 otherwise.`,
		Example: `  netguard policy validate db.yaml api.yaml
  netguard policy validate /etc/netguard/policies
  git show HEAD:db.yaml | netguard policy validate -
  netguard policy validate -o json . | jq -r '.files[].faults[].text'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the files or directories to look at, - is the standard input")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	output, check := outputFlag(cmd, "text", "json", "yaml")
	cmd.RunE = verb(func(cmd *cobra.Command, names []string) error {
		if err := check(); err != nil {
			return err
		}
		var files policyFiles
		for _, name := range names {
			if err := files.add(cmd.Context(), name, cmd.InOrStdin()); err != nil {
				return err
			}
		}
		v := validate(files)
		if *output == "text" && !v.Valid {
			writeFaults(cmd.ErrOrStderr(), v.faults())
			return errNotFine
		}
		if err := writeAnswer(cmd.OutOrStdout(), *output, v, v.summary); err != nil {
			return err
		}
		if !v.Valid {
			return errNotFine
		}
		return nil
	})
	return cmd
}

// validation is what `policy validate -o json` says: fields are added, never
// renamed or taken away.
type validation struct {
	Valid bool            `json:"valid" yaml:"valid"`
	Files []validatedFile `json:"files" yaml:"files"`
}

type validatedFile struct {
	File     string           `json:"file" yaml:"file"`
	Policies []string         `json:"policies" yaml:"policies"` // names
	Faults   []validatedFault `json:"faults" yaml:"faults"`
}

// validatedFault is a fault with its place, counted from 1. A fault of the whole file is at its
// beginning, so that every fault has a place.
type validatedFault struct {
	Line   int    `json:"line" yaml:"line"`
	Column int    `json:"column" yaml:"column"`
	Text   string `json:"text" yaml:"text"`
}

// validate looks at files that were read. The files are sorted by name.
func validate(files policyFiles) validation {
	v := validation{Valid: true, Files: []validatedFile{}}
	add := func(name string, policies []netpolicy.Policy, faults netpolicy.Faults) {
		f := validatedFile{File: name, Policies: []string{}, Faults: []validatedFault{}}
		for _, p := range policies {
			if p.Name() != "" {
				f.Policies = append(f.Policies, p.Name())
			}
		}
		for _, fault := range faults {
			f.Faults = append(f.Faults, validatedFault{fault.Line, fault.Column, fault.Text})
			v.Valid = false
		}
		v.Files = append(v.Files, f)
	}
	for _, f := range netpolicy.Load(files.sources).Files {
		add(f.Name, f.Policies, f.Faults)
	}
	for _, f := range files.faults {
		add(f.File, nil, netpolicy.Faults{f})
	}
	slices.SortStableFunc(v.Files, func(a, b validatedFile) int { return cmp.Compare(a.File, b.File) })
	return v
}

func (v validation) faults() netpolicy.Faults {
	var all netpolicy.Faults
	for _, f := range v.Files {
		for _, fault := range f.Faults {
			all = append(all, netpolicy.Fault{Place: netpolicy.Place{File: f.File, Line: fault.Line, Column: fault.Column}, Text: fault.Text})
		}
	}
	return all
}

func (v validation) summary() string {
	policies := 0
	for _, f := range v.Files {
		policies += len(f.Policies)
	}
	return fmt.Sprintf("%s in %s\n", count(policies, "policy", "policies"), count(len(v.Files), "file", "files"))
}

// count writes a number and what it is the number of.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
