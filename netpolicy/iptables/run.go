package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// maxListing bounds what a program may list; a Kubernetes node has megabytes.
	maxListing = 64 << 20
	// maxComplaint bounds what a program may say of a fault.
	maxComplaint = 64 << 10
)

// limited keeps the beginning of what is written to it.
type limited struct {
	to   io.Writer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.room)
	l.room -= n
	if _, err := l.to.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// run runs a program in the network namespace of this thread.
func (b *backend) run(ctx context.Context, path string, args []string, input string) (string, error) {
	return b.begin(ctx, path, args, input)()
}

// begin starts a program in the network namespace of this thread. The function that it gives
// waits for its end, and gives what it wrote.
func (b *backend) begin(ctx context.Context, path string, args []string, input string) func() (string, error) {
	// The program may wait for the lock for b.wait. If it needs 30 s more, it hangs.
	ctx, cancel := context.WithTimeout(ctx, b.wait+30*time.Second)
	*b.forked++
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	// A program that waits for the lock must not write after this process is dead and the
	// next one has read the rules. It writes everything at once or nothing.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, fault bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &limited{&out, maxListing}, &limited{&fault, maxComplaint}
	err := cmd.Start()
	return func() (string, error) {
		defer cancel()
		if err == nil {
			err = cmd.Wait()
		}
		if err == nil && out.Len() == maxListing {
			err = fmt.Errorf("it lists more than %d MB", maxListing>>20)
		}
		if err != nil {
			if ctx.Err() != nil {
				err = errors.Join(err, ctx.Err())
			}
			return "", restoreError(filepath.Base(path), input, fault.String(), err)
		}
		return out.String(), nil
	}
}
