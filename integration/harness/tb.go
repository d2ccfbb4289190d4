package harness

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// TB is what the harness needs of a test. Every testing.TB is one; a program
// gets one from [Program].
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	Context() context.Context
}

// life returns the context that bounds the work for a test. A test's own context has
// ended when its cleanups run, but the cleanups must still work.
func life(tb TB) context.Context {
	ctx := tb.Context()
	if p, ok := tb.(*program); ctx.Err() != nil && (!ok || p.cleaning.Load()) {
		return context.Background()
	}
	return ctx
}

// limited is life for something that may take as long as patience lasts.
func limited(tb TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(life(tb), patience)
}

// Program runs f like a test, but in a program: the log goes to standard error, an
// interrupt ends the context, and everything is cleaned up before it returns the exit
// code.
func Program(name string, f func(TB)) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &program{name: name, ctx: ctx}
	p.run(func() { f(p) })
	p.cleaning.Store(true)
	for {
		p.mu.Lock()
		n := len(p.cleanups)
		if n == 0 {
			p.mu.Unlock()
			break
		}
		last := p.cleanups[n-1]
		p.cleanups = p.cleanups[:n-1]
		p.mu.Unlock()
		p.run(last)
	}
	if p.Failed() {
		return 1
	}
	return 0
}

type program struct {
	name   string
	ctx    context.Context
	failed atomic.Bool
	// cleaning says that f is over; an interrupt ends only f.
	cleaning atomic.Bool

	mu       sync.Mutex
	cleanups []func()
}

// run calls f in a goroutine of its own, which Fatalf ends. It also cleans up after a
// panic.
func (p *program) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				stack := make([]byte, 16<<10)
				p.Errorf("panic: %v\n%s", r, stack[:runtime.Stack(stack, false)])
			}
		}()
		f()
	}()
	<-done
}

func (p *program) Helper()                  {}
func (p *program) Name() string             { return p.name }
func (p *program) Failed() bool             { return p.failed.Load() }
func (p *program) Context() context.Context { return p.ctx }

func (p *program) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (p *program) Errorf(format string, args ...any) {
	p.failed.Store(true)
	p.Logf(format, args...)
}

func (p *program) Fatalf(format string, args ...any) {
	p.Errorf(format, args...)
	runtime.Goexit()
}

func (p *program) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}
