package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"netguard/internal/plain"
)

// outputFlag adds the flag --output with the values that it may have, the usual one first,
// and gives what checks it.
func outputFlag(cmd *cobra.Command, values ...string) (output *string, check func() error) {
	all := strings.Join(values, ", ")
	output = cmd.Flags().StringP("output", "o", values[0], all)
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	return output, func() error {
		if !slices.Contains(values, *output) {
			return usage("--output is %q: it is one of %s", *output, all)
		}
		return nil
	}
}

// writeAnswer writes an answer as the flag --output says; text is how people read it.
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

func writeJSON(to io.Writer, what any, indent string) error {
	e := json.NewEncoder(plain.Writer(to))
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(what); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func writeYAML(to io.Writer, what any) error {
	text, err := yaml.Dump(what, yaml.WithIndent(2))
	if err == nil && bytes.ContainsFunc(text, plain.Hostile) {
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
