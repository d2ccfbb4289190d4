// Command reaper removes what a test run leaves behind when it cannot do so
// itself: after a time-out, a crash, an interrupt, a kill.
//
// The run starts it with a pipe as its standard input and its own process id as
// the argument, and never writes: the kernel closes the pipe when the run ends,
// however it ends, and that is the event that the reaper waits for. Without an
// argument it sweeps once, for a person or a script.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"netguard/integration/remains"
)

func main() {
	if err := reap(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "reaper:", err)
		os.Exit(1)
	}
}

func reap(args []string) error {
	if len(args) == 0 {
		swept, err := remains.Sweep()
		for _, name := range swept {
			fmt.Println("removed what was left of", name)
		}
		return err
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("read owner's process id: %w", err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("wait for the owner's end: %w", err)
	}
	_, err = remains.SweepOwner(pid)
	return err
}
