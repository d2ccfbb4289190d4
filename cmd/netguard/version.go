package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version can be set by a packager: -ldflags "-X main.version=v1.2.3".
var version string

type build struct {
	version  string // of the module; "devel" for one without a tag
	revision string // of the repository; "" when it was not known
	modified bool
}

// buildVersion reads what the linker wrote into the binary.
func buildVersion() build {
	b := build{version: version}
	info, ok := debug.ReadBuildInfo()
	if ok {
		if b.version == "" && info.Main.Version != "(devel)" {
			b.version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.revision = s.Value
			case "vcs.modified":
				b.modified = s.Value == "true"
			}
		}
	}
	if b.version == "" {
		b.version = "devel"
	}
	return b
}

func (b build) String() string {
	text := "netguard " + b.version
	if b.revision != "" {
		text += fmt.Sprintf(" (revision %.12s", b.revision)
		if b.modified {
			text += ", modified"
		}
		text += ")"
	}
	return fmt.Sprintf("%s %s %s/%s", text, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Tell which netguard this is",
		Args:  cobra.NoArgs,
		RunE: verb(func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
			return err
		}),
	}
}
