package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long anything may take that a test waits for.
const patience = 30 * time.Second

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// Result is what a program that has ended left.
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
	p, err := n.spawn(name, args...)
	if err != nil {
		n.tb.Fatalf("%v", err)
	}
	return p.Wait()
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
	p, err := n.spawn(name, args...)
	if err != nil {
		n.tb.Fatalf("%v", err)
	}
	return p
}

func (n Netns) spawn(name string, args ...string) (*Process, error) {
	return start(n.tb, n.Command(context.Background(), name, args...))
}

// Process is a program that runs.
type Process struct {
	tb      TB
	name    string
	cmd     *exec.Cmd
	out     *output
	errOut  *output
	ended   chan struct{}
	waitErr error
}

func start(tb TB, cmd *exec.Cmd) (*Process, error) {
	p := &Process{tb: tb, cmd: cmd, out: newOutput(), errOut: newOutput(), ended: make(chan struct{})}
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
		p.waitErr = cmd.Wait()
		p.out.close()
		p.errOut.close()
		close(p.ended)
	}()
	tb.Cleanup(func() { p.Kill() })
	return p, nil
}

// PID returns the process id. nsenter becomes the program that it starts, so
// that it is the program's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal; one to a process that has ended is lost.
func (p *Process) Signal(s os.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Errorf("signal %s: %v", p.name, err)
	}
}

// Kill ends the process at once, and waits for that.
func (p *Process) Kill() Result {
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
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Wait waits for the process's end.
func (p *Process) Wait() Result {
	<-p.ended
	return Result{Command: p.name, Stdout: p.out.String(), Stderr: p.errOut.String(), Code: p.cmd.ProcessState.ExitCode()}
}

// Stdout returns what the process has printed until now.
func (p *Process) Stdout() string { return p.out.String() }

// Stderr returns what the process has printed to its standard error until now.
func (p *Process) Stderr() string { return p.errOut.String() }

// AwaitLine waits until the process has printed a line with this text, to
// either output, and returns the line.
func (p *Process) AwaitLine(text string) string {
	p.tb.Helper()
	limit := time.After(patience)
	for {
		// Taken before looking: what is printed in between closes them.
		more, moreErr := p.out.more(), p.errOut.more()
		for _, o := range []*output{p.out, p.errOut} {
			if line, ok := o.find(text); ok {
				return line
			}
		}
		select {
		case <-more:
		case <-moreErr:
		case <-p.ended:
			for _, o := range []*output{p.out, p.errOut} {
				if line, ok := o.find(text); ok {
					return line
				}
			}
			p.tb.Fatalf("ended without printing %q: %s", text, p.Wait())
		case <-limit:
			p.tb.Fatalf("%s has not printed %q for %v\nstdout: %s\nstderr: %s", p.name, text, patience, p.out, p.errOut)
		case <-p.tb.Context().Done():
			p.tb.Fatalf("wait for %q of %s: %v", text, p.name, p.tb.Context().Err())
		}
	}
}

// output keeps what a process prints, and tells when there is more.
type output struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	change chan struct{}
	closed bool
}

// maxOutput bounds what is kept of a process that never stops printing.
const maxOutput = 16 << 20

func newOutput() *output { return &output{change: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len()+len(b) > maxOutput {
		o.buf.Next(maxOutput / 2)
	}
	o.buf.Write(b)
	close(o.change)
	o.change = make(chan struct{})
	return len(b), nil
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

func (o *output) more() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.change
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// find returns the first whole line that has the text; the last line counts
// when the process has ended.
func (o *output) find(text string) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(o.buf.String()) {
		if !strings.HasSuffix(line, "\n") && !o.closed {
			break
		}
		if line = strings.TrimSuffix(line, "\n"); strings.Contains(line, text) {
			return line, true
		}
	}
	return "", false
}
