package agent

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"netguard/agent/config"
)

// settings is the configuration in force.
type settings struct {
	now   atomic.Pointer[config.Config]
	fault atomic.Pointer[string] // why the last edit is not (all) in force; nil if it is
	pause func(context.Context)  // waits before a missing or empty file counts as such

	mu         sync.Mutex
	complaints []string // what is wrong since the start
}

func newSettings(cfg *config.Config) *settings {
	s := &settings{pause: await}
	s.now.Store(cfg)
	return s
}

// complain adds a finding that stands until the agent starts again.
func (s *settings) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complaints = append(s.complaints, fmt.Sprintf(format, args...))
}

// findings are what an operator should know of the configuration in force.
func (s *settings) findings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.complaints)
	if fault := s.fault.Load(); fault != nil {
		out = append(out, *fault)
	}
	return out
}

// config is the configuration in force. Nobody changes it: another one is another pointer.
func (s *settings) config() *config.Config { return s.now.Load() }

// reload reads the file again and tells whether something changed. A file that
// cannot be read leaves the old configuration in force. A file that says nothing any more is read
// again after a moment: somebody may be writing it.
func (s *settings) reload(ctx context.Context, o Options, log *slog.Logger) bool {
	old := s.config()
	cfg, err := o.load()
	if err == nil && o.isDefault(cfg) && !o.isDefault(*old) {
		if s.pause(ctx); ctx.Err() != nil {
			return false
		}
		cfg, err = o.load()
	}
	if err != nil {
		text := fmt.Sprintf("the configuration cannot be read, the one before stays in force: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		if was := s.fault.Load(); was == nil || *was != text {
			log.Error("configuration cannot be read; the one before stays in force", "error", err)
		}
		s.fault.Store(&text)
		return false
	}
	// What is read only at the start (socket, log and so on) stays as it is. All else takes its
	// new value.
	started := *old
	started.Exclude, started.Limits, started.AllowOptOut = cfg.Exclude, cfg.Limits, cfg.AllowOptOut
	started.Unguarded, started.AdmissionOpen, started.Storm = cfg.Unguarded, cfg.AdmissionOpen, cfg.Storm
	started.TrustImageLabels = cfg.TrustImageLabels
	started.AdmitUnknown, started.Uplinks, started.SwarmPortsOpen = cfg.AdmitUnknown, cfg.Uplinks, cfg.SwarmPortsOpen
	started.Connections, started.Claims, started.Fragments = cfg.Connections, cfg.Claims, cfg.Fragments
	started.FragmentRate, started.DHCPServers = cfg.FragmentRate, cfg.DHCPServers
	s.fault.Store(nil)
	if !reflect.DeepEqual(started, cfg) {
		text := fmt.Sprintf("%s changes what is only read at the start (socket, metrics, docker_host, policy_dir, log): restart the agent for that", o.ConfigPath)
		s.fault.Store(&text)
	}
	if reflect.DeepEqual(started, *old) {
		return false
	}
	s.now.Store(&started)
	log.Info("configuration read again", "file", o.ConfigPath)
	return true
}

// isDefault tells whether a configuration is that of a host without a file.
func (o Options) isDefault(cfg config.Config) bool {
	without, err := config.Default().With(o.Overrides)
	return err == nil && reflect.DeepEqual(cfg, without)
}
