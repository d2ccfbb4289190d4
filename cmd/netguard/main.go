// Command netguard isolates and limits the containers of a plain Docker host,
// and shows what is enforced.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"netguard/agent/config"
	"netguard/agent/control"
	"netguard/internal/plain"
)

// The exit codes, which scripts may count on.
const (
	exitFine        = 0
	exitNotFine     = 1 // what was asked about is not as it should be, or could not be told
	exitUsage       = 2 // wrong flags, arguments or configuration
	exitUnreachable = 3 // no agent answers
	exitInterrupted = 130
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // most commands end before it is worth to collect anything
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is one call of the command line; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for os.Args
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	code := exitCode(err)
	if code == exitInterrupted || errors.Is(err, errNotFine) {
		return code // all is said
	}
	complain(stderr, err)
	var ran *ranError
	if !errors.As(err, &ran) || errors.Is(err, errUsage) {
		fmt.Fprintf(stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
	return code
}

// complain writes an error. The error may have several lines and quote text that anybody chose.
func complain(to io.Writer, err error) {
	start := "netguard: "
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(to, start+plain.Text(line))
			start = "  "
		}
	}
}

// ranError marks the error of a verb. All other errors are cobra's, about the command line.
type ranError struct{ error }

func (e *ranError) Unwrap() error { return e.error }

var (
	// errNotFine ends a verb whose output has said what is not fine.
	errNotFine = errors.New("not as declared")
	errUsage   = errors.New("wrong usage")
	errConfig  = errors.New("configuration")
)

// usage is an error about flags or arguments.
func usage(format string, args ...any) error {
	return &kind{fmt.Errorf(format, args...), errUsage}
}

// kind is an error with its own text that also wraps a sentinel.
type kind struct {
	error
	is error
}

func (k *kind) Unwrap() []error { return []error{k.error, k.is} }

func exitCode(err error) int {
	var ran *ranError
	var faults config.Faults
	switch {
	case !errors.As(err, &ran), errors.Is(err, errUsage), errors.Is(err, errConfig), errors.As(err, &faults):
		return exitUsage
	case errors.Is(err, control.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitNotFine
}

// verb makes the function that cobra runs: it marks the errors of do with ranError.
func verb(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := do(cmd, args); err != nil {
			return &ranError{err}
		}
		return nil
	}
}
