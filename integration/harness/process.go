package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// patience is how long a test waits for an event.
	patience = 30 * time.Second
	// longest is how long a test waits for a program to end.
	longest = 5 * time.Minute
)

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// Result is the outcome of a program that has ended.
type Result struct {
	Command string
	Stdout  string
	Stderr  string
	Code    int // exit code; -1 when a signal ended it
}

// OK tells whether the program ended with exit code 0.
func (r Result) OK() bool { return r.Code == 0 }

// String tells the command, its exit code and its output, for failure messages.
func (r Result) String() string {
	return fmt.Sprintf("%s: exit code %d\nstdout: %s\nstderr: %s", r.Command, r.Code, r.Stdout, r.Stderr)
}

// Into decodes the last line of the standard output, which is JSON.
func (r Result) Into(value any) error {
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), value); err != nil {
		return fmt.Errorf("decode output: %w\n%s", err, r)
	}
	return nil
}

// Try runs a program in the namespace to its end, whatever that is.
func (n Netns) Try(name string, args ...string) Result {
	n.tb.Helper()
	ctx, cancel := context.WithTimeout(life(n.tb), longest)
	defer cancel()
	p, err := start(n.tb, n.Command(ctx, name, args...))
	if err != nil {
		n.tb.Fatalf("%v", err)
	}
	r := p.Wait()
	if ctx.Err() != nil {
		n.tb.Fatalf("ended by force: %v: %s", ctx.Err(), r)
	}
	return r
}

// Output runs a program in the namespace and returns its standard output. It
// must succeed.
func (n Netns) Output(name string, args ...string) string {
	n.tb.Helper()
	r := n.Try(name, args...)
	if !r.OK() {
		n.tb.Fatalf("%s", r)
	}
	return r.Stdout
}

// Spawn starts a program in the namespace. It is ended when the test is over.
func (n Netns) Spawn(name string, args ...string) *Process {
	n.tb.Helper()
	p, err := start(n.tb, n.Command(context.Background(), name, args...))
	if err != nil {
		n.tb.Fatalf("%v", err)
	}
	return p
}

// Process is a program that runs.
type Process struct {
	tb TB
	*process
}

type process struct {
	name   string
	cmd    *exec.Cmd
	out    *output
	errOut *output
	ended  chan struct{}
}

func start(tb TB, cmd *exec.Cmd) (*Process, error) {
	p := &process{cmd: cmd, out: newOutput(), errOut: newOutput(), ended: make(chan struct{})}
	p.name = strings.Join(cmd.Args, " ")
	if _, after, ok := strings.Cut(p.name, " -- "); ok {
		p.name = after
	}
	cmd.Stdout, cmd.Stderr = p.out, p.errOut
	// A grandchild that keeps the output open must not hold Wait.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		cmd.Wait() // its error is in the ProcessState
		p.out.close()
		p.errOut.close()
		close(p.ended)
	}()
	handle := &Process{tb: tb, process: p}
	tb.Cleanup(func() { handle.Kill() })
	return handle, nil
}

// For returns the same process for a subtest.
func (p *Process) For(tb TB) *Process { return &Process{tb: tb, process: p.process} }

// PID returns the process id. nsenter becomes the program that it starts, so
// that it is the program's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal. If the process has ended, nothing happens.
func (p *Process) Signal(s os.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Errorf("signal %s: %v", p.name, err)
	}
}

// Kill ends the process at once, and waits for that.
func (p *Process) Kill() Result {
	p.tb.Helper()
	p.Signal(os.Kill)
	return p.Wait()
}

// Stop asks the process to end (SIGTERM) and waits for that.
func (p *Process) Stop() Result {
	p.tb.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.tb.Errorf("%s does not end %v after SIGTERM", p.name, patience)
		p.Signal(os.Kill)
	}
	return p.Wait()
}

// Ended is closed when the process has ended.
func (p *process) Ended() <-chan struct{} { return p.ended }

// Wait waits for the process's end.
func (p *process) Wait() Result {
	<-p.ended
	return Result{Command: p.name, Stdout: p.out.String(), Stderr: p.errOut.String(), Code: p.cmd.ProcessState.ExitCode()}
}

// Stdout returns what the process has printed until now.
func (p *process) Stdout() string { return p.out.String() }

// Stderr returns what the process has printed to its standard error until now.
func (p *process) Stderr() string { return p.errOut.String() }

// AwaitLine waits until the process has printed a line with this text, to
// either output, and returns the line.
func (p *Process) AwaitLine(text string) string {
	p.tb.Helper()
	ctx, cancel := limited(p.tb)
	defer cancel()
	for {
		// Taken before the output is read: text that is printed in between closes them.
		more, moreErr := p.out.more(), p.errOut.more()
		over := false
		select {
		case <-p.ended: // read before the output, which is then complete
			over = true
		default:
		}
		for _, o := range []*output{p.out, p.errOut} {
			if line, ok := o.find(text); ok {
				return line
			}
		}
		if over {
			p.tb.Fatalf("ended without printing %q: %s", text, p.Wait())
		}
		select {
		case <-more:
		case <-moreErr:
		case <-p.ended:
		case <-ctx.Done():
			p.tb.Fatalf("%s has not printed %q: %v\nstdout: %s\nstderr: %s", p.name, text, ctx.Err(), p.out, p.errOut)
		}
	}
}
