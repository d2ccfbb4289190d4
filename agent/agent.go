// Package agent is netguard's daemon: it watches Docker and the kernel, decides
// what every endpoint should have, brings the kernel to it, and says so.
//
// Data goes one way: observe (docker, link), snapshot (endpoint.Join), desired,
// diff with what the kernel has, apply, read back. Events are never more than a
// reason to look. One goroutine writes to the kernel. The kernel keeps what the agent wrote,
// however the agent ends. The next agent adopts it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"netguard/agent/config"
	"netguard/agent/control"
	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/agent/metrics"
	"netguard/agent/observe"
	"netguard/agent/reconcile"
	"netguard/agent/refusals"
	"netguard/agent/status"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper/tc"
)

// Options are what the command line says.
type Options struct {
	ConfigPath     string // of the configuration file
	ConfigExplicit bool   // the operator named it, so it must exist
	Overrides      config.Overrides
	Mode           string // enforce or monitor
	Version        string
	Log            io.Writer
}

// monitors tells whether the agent lets pass what it would refuse.
func (o Options) monitors() bool { return o.Mode == control.ModeMonitor }

// load reads the configuration and puts the flags over it.
func (o Options) load() (config.Config, error) {
	cfg, err := config.Load(o.ConfigPath, o.ConfigExplicit)
	if err != nil {
		return config.Config{}, err
	}
	return cfg.With(o.Overrides)
}

// Run runs the agent in the network namespace of the calling process until ctx ends. The error
// says why the agent could not start or go on. The end of ctx is no error.
func Run(ctx context.Context, o Options) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	log := slog.New(cfg.Log.Handler(o.Log))
	s := newSettings(&cfg)

	if err := privileged(); err != nil {
		return err
	}
	answers := status.New(status.Reader{Mode: o.Mode, Began: time.Now()})
	server := control.NewServer(cfg.Socket, answers, o.Version, log)
	// The socket first: it keeps a second agent from writing anything.
	if err := server.Listen(); err != nil {
		return err
	}
	defer server.Close()
	only, err := lockOwner(log)
	if err != nil {
		return err
	}
	defer only.Close()

	rules := newPolicies(cfg.PolicyDir, o.monitors())
	if err := rules.start(); err != nil {
		return err
	}

	links, err := link.New(log)
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer links.Close()
	engine, err := docker.New(cfg.DockerHost, log)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }() // nothing is lost with it
	reader, err := tc.Open()
	if err != nil {
		return err
	}
	defer reader.Close()
	driver, err := tc.Open()
	if err != nil {
		return err
	}
	defer driver.Close()
	links.Ignore(driver.Socket())

	has, err := probe(ctx, driver)
	if err != nil {
		return err
	}
	watcher, err := guard.Open(has.guard, log)
	if err != nil {
		return err
	}
	defer watcher.Close()
	// Two drivers again: one writes, the other answers status.
	filtering := iptables.Options{Programs: has.programs, Samples: has.samples == nil, Monitor: o.monitors()}
	filter, err := iptables.Open(ctx, filtering)
	if err != nil {
		return err
	}
	defer filter.Close()
	filterReader, err := iptables.Open(ctx, filtering)
	if err != nil {
		return err
	}
	defer filterReader.Close()
	if err := untouchable(ctx, filter, watcher); err != nil {
		return err
	}

	tables := &nftNotices{}
	loop := reconcile.NewLoop(reconcile.Parts{Log: log, Shape: driver, Guard: watcher, Policy: filter, Connections: filter, Links: links, Notices: tables,
		BootCache: reconcile.OpenBootCache(reconcile.BootCachePath(), log), Config: s.config, Catalog: rules.now.Load, Monitor: o.monitors(), Clock: time.Now})
	view := observe.New(engine, links, log, time.Now, loop.Wake)
	loop.Observes(view)
	refused := refusals.New(log, refusals.Source{State: loop.State, Addresses: links.Addresses, Guard: watcher}, has.samples, o.monitors())
	loop.Alerted(refused.Alerts)
	around := &status.ForeignRules{Options: filtering}
	defer around.Close()
	answers.Around = around
	answers.Loop, answers.View, answers.Engine, answers.Shaper, answers.Filter, answers.Guard = loop, view, engine, reader, filterReader, watcher
	answers.Findings = func() []string { return append(s.findings(), rules.findings()...) }
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	server.Cleans(&cleaner{loop: loop, log: log, end: end, clean: func(ctx context.Context) error { return clean(ctx, filter, watcher, driver) }})
	server.Policies(&status.Policies{State: loop.State, Links: links, Around: around})
	server.Events(refused.Hub)
	loop.Shapes(has.shaper.Leaf)
	answers.Features = has.shaper
	log.Info("netguard agent starts", "version", o.Version, "mode", o.Mode, "socket", cfg.Socket,
		"leaf", has.shaper.Leaf, "missing", strings.Join(slices.Concat(has.shaper.Missing, watcher.Features().Missing), "; "))
	return tasks(ctx, o, cfg, s, parts{links, engine, view, loop, answers, server, refused, rules, tables}, log)
}

// abilities are what the host has for netguard.
type abilities struct {
	shaper   tc.Features
	guard    guard.Features
	programs *iptables.Programs
	samples  error // why packets that policies refuse are not sampled
}

// probe finds out what the host has, all of it at once.
func probe(ctx context.Context, driver *tc.Driver) (abilities, error) {
	var has abilities
	var g errgroup.Group
	g.Go(func() (err error) {
		has.shaper, err = driver.Probe()
		return err
	})
	g.Go(func() (err error) {
		if has.guard, err = guard.Probe(); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		return nil
	})
	g.Go(func() (err error) {
		if has.programs, err = iptables.Find(); err != nil {
			return fmt.Errorf("open iptables: %w", err)
		}
		has.samples = has.programs.ProbeSamples(ctx)
		return nil
	})
	err := g.Wait()
	return has, err
}

// parts are what the agent's tasks are made of.
type parts struct {
	links   *link.Table
	engine  *docker.Engine
	view    *observe.Observer
	loop    *reconcile.Loop
	status  *status.Reader
	server  *control.Server
	refused *refusals.Refusals
	rules   *policies
	tables  *nftNotices
}

// tasks runs all long-lived tasks until one fails or ctx ends.
func tasks(ctx context.Context, o Options, cfg config.Config, s *settings, p parts, log *slog.Logger) error {
	g, run := errgroup.WithContext(ctx)
	start := func(name string, task func(context.Context) error) {
		g.Go(func() error {
			err := task(run)
			if err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return err
		})
	}
	listed := make(chan struct{})
	var once sync.Once
	start("watch links", func(ctx context.Context) error {
		return p.links.Watch(ctx, func() {
			once.Do(func() { close(listed) })
			p.loop.Wake()
			p.view.Wakeup.Call()
		})
	})
	start("watch docker", func(ctx context.Context) error { return p.engine.Watch(ctx, p.view.Wakeup.Call) })
	afterwards := func(task func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-listed:
				return task(ctx)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	start("observe docker", afterwards(p.view.Run))
	start("reconcile", afterwards(p.loop.Run))
	start("serve control socket", p.server.Serve)
	for _, task := range p.refused.Tasks() {
		start("listen to what is refused", task)
	}
	if cfg.Metrics != "" {
		start("serve metrics", func(ctx context.Context) error {
			err := metrics.New(cfg.Metrics, p.status, log).Serve(ctx)
			if err != nil && ctx.Err() == nil {
				// The agent goes on enforcing without metrics.
				log.Error("metrics are not served", "error", err)
				s.complain("metrics are not served: %v: free the address or choose another with metrics: in the configuration, then restart the agent", err)
				return nil
			}
			return err
		})
	}
	start("watch configuration", func(ctx context.Context) error {
		return config.Watch(ctx, o.ConfigPath, log, func() {
			if s.reload(ctx, o, log) {
				p.loop.Wake()
			}
		})
	})
	start("watch policies", func(ctx context.Context) error {
		return config.WatchDir(ctx, cfg.PolicyDir, policyFiles, log, func() {
			p.rules.reload(ctx, log)
			p.loop.Wake()
		})
	})
	start("watch nftables", func(ctx context.Context) error { return p.tables.watch(ctx, p.loop.Wake) })
	start("notify systemd", afterwards(notify(log)))
	err := g.Wait()
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	switch {
	case errors.Is(context.Cause(ctx), errCleaned):
		log.Info("netguard agent stops; " + errCleaned.Error())
		return nil
	case ctx.Err() != nil:
		log.Info("netguard agent stops; " + reconcile.Parting(p.loop.Admission()))
		return nil
	}
	return err
}

// notify tells systemd that the agent is ready: its socket answers and it follows the kernel.
// It does not wait for Docker, because dockerd may be ordered after netguard.
func notify(log *slog.Logger) func(context.Context) error {
	return func(context.Context) error {
		if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
			log.Warn("systemd cannot be notified", "error", err)
		}
		return nil
	}
}
