package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/docker/docker/client"

	"netguard/integration/remains"
)

// Engine is a Docker engine, and the host on which it runs: its own methods run
// programs in the host's network namespace.
type Engine struct {
	Netns
	// Client speaks to the engine, for requests that the harness has no method for.
	Client *client.Client
	// Outside is a host beyond the engine's uplink; see [WithOutside].
	Outside *Outside

	*engine
	scoped bool // containers and networks are removed when tb's test ends
}

// engine is what all handles of one engine share.
type engine struct {
	name    string
	dir     string
	record  remains.Record
	session *session
	set     settings
	daemon  *daemon

	mu     sync.Mutex
	images map[string]func() error
	agents int
}

// Start starts an engine that lives until the test is over.
func Start(tb TB, options ...Option) *Engine {
	tb.Helper()
	s, err := theSession()
	if err != nil {
		tb.Fatalf("%v", err)
	}
	e := &engine{name: s.engineName(), session: s, images: map[string]func() error{}}
	for _, o := range options {
		o(&e.set)
	}
	e.dir = filepath.Join(os.TempDir(), e.name)
	e.record = remains.Record{Name: e.name, Owner: s.owner, Dir: e.dir, Netns: []string{e.name}, Cgroup: e.name}
	if e.set.outside {
		e.record.Netns = append(e.record.Netns, e.name+"-out")
	}
	handle := &Engine{engine: e, Netns: Netns{tb: tb, file: filepath.Join(netnsDir, e.name), mark: e.record.Mark()}}
	handle.env = append(handle.env, "STATE_DIRECTORY="+e.path("state"))
	if err := handle.set.iptables(handle); err != nil {
		tb.Fatalf("%v", err)
	}
	if err := e.record.Write(); err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() && !e.set.noDaemon {
			tb.Logf("dockerd of %s, the last lines of its log:\n%s", e.name, e.logTail(40))
		}
		if handle.Client != nil {
			handle.Client.Close()
		}
		if err := e.record.Remove(false); err != nil {
			tb.Errorf("%v", err)
		}
	})
	if err := handle.build(tb); err != nil {
		tb.Fatalf("%v", err)
	}
	if !e.set.noDaemon {
		handle.StartDaemon()
	}
	return handle
}

// build makes what the engine runs on.
func (e *Engine) build(tb TB) error {
	for _, dir := range []string{"bin", "state"} {
		if err := os.MkdirAll(e.path(dir), 0o755); err != nil {
			return fmt.Errorf("create engine %s: %w", e.name, err)
		}
	}
	if err := e.set.linkIptables(e.path("bin")); err != nil {
		return err
	}
	if err := createNetns(e.name); err != nil {
		return err
	}
	if err := e.Do(e.set.sysctls); err != nil {
		return err
	}
	if e.set.outside {
		var err error
		if e.Outside, err = joinOutside(e); err != nil {
			return err
		}
	}
	var err error
	e.Client, err = client.NewClientWithOpts(client.WithHost(e.Host()), client.WithAPIVersionNegotiation())
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	return nil
}

// For returns the same engine for a subtest: it reports failures to the subtest, and
// removes the subtest's containers and networks when the subtest ends.
func (e *Engine) For(tb TB) *Engine {
	scoped := *e
	scoped.tb, scoped.scoped = tb, true
	if e.Outside != nil {
		out := *e.Outside
		out.tb = tb
		scoped.Outside = &out
	}
	return &scoped
}

// Host returns the engine's address for Docker clients.
func (e *Engine) Host() string { return "unix://" + e.path("docker.sock") }

// Name returns the engine's unique name.
func (e *Engine) Name() string { return e.name }

// Dir returns the engine's directory. Tests may put files there.
func (e *Engine) Dir() string { return e.dir }

func (e *engine) path(elem ...string) string {
	return filepath.Join(append([]string{e.dir}, elem...)...)
}

// ctx bounds a call to the engine.
func (n Netns) ctx() (context.Context, context.CancelFunc) { return limited(n.tb) }

// must ends the test when err is not nil.
func (n Netns) must(err error, format string, args ...any) {
	if err != nil {
		n.tb.Helper()
		n.tb.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}
