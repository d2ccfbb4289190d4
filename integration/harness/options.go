package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Option changes how an engine is started.
type Option func(*settings)

type settings struct {
	flags           []string
	bridgeNetfilter bool
	ipv6            bool
	legacy          bool
	outside         bool
	config          string
	noDaemon        bool
}

// Flags passes flags to dockerd, such as --live-restore.
func Flags(flags ...string) Option {
	return func(s *settings) { s.flags = append(s.flags, flags...) }
}

// DaemonConfig is the text of the engine's daemon.json.
func DaemonConfig(json string) Option {
	return func(s *settings) { s.config = json }
}

// WithBridgeNetfilter lets iptables see frames between two ports of a bridge. It
// is off otherwise, as on most hosts with Docker 28 and later.
func WithBridgeNetfilter() Option {
	return func(s *settings) { s.bridgeNetfilter = true }
}

// WithIPv6 gives the default bridge an IPv6 subnet and lets dockerd write
// ip6tables. Networks with an IPv6 subnet work without it.
func WithIPv6() Option {
	return func(s *settings) { s.ipv6 = true }
}

// WithLegacyIptables lets everything on the engine's host use the iptables that
// do not go through nftables.
func WithLegacyIptables() Option {
	return func(s *settings) { s.legacy = true }
}

// WithOutside joins a second host to the engine's, as [Engine.Outside].
func WithOutside() Option {
	return func(s *settings) { s.outside = true }
}

// WithoutDaemon makes the engine's host without a dockerd: the test answers at the
// engine's socket itself.
func WithoutDaemon() Option {
	return func(s *settings) { s.noDaemon = true }
}

var iptablesNames = []string{
	"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
}

// iptables puts the directory with the chosen iptables before the others of PATH.
func (s settings) iptables(e *Engine) error {
	if !s.legacy {
		return nil
	}
	if _, err := exec.LookPath("xtables-legacy-multi"); err != nil {
		return fmt.Errorf("find legacy iptables: %w (install iptables)", err)
	}
	e.env = append(e.env, "PATH="+e.path("bin")+":"+os.Getenv("PATH"),
		// Otherwise a file stays in /run, and the engines wait for each other.
		"XTABLES_LOCKFILE="+e.path("xtables.lock"))
	return nil
}

func (s settings) linkIptables(dir string) error {
	if !s.legacy {
		return nil
	}
	multi, err := exec.LookPath("xtables-legacy-multi")
	if err != nil {
		return fmt.Errorf("find legacy iptables: %w", err)
	}
	for _, name := range iptablesNames {
		if err := os.Symlink(multi, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("choose legacy iptables: %w", err)
		}
	}
	return nil
}

// sysctls sets what belongs to the engine's namespace; it runs in it.
func (s settings) sysctls() error {
	if err := s.bridgeFilter(); err != nil {
		return err
	}
	for _, path := range []string{"conf/all/disable_ipv6", "conf/default/disable_ipv6"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/"+path, []byte("0"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("switch IPv6 on: %w", err)
		}
	}
	return nil
}

// bridgeFilter sets what bridges hand to iptables; it runs in the namespace.
// Docker 28 switches it on with the first network if the userland proxy is off.
func (s settings) bridgeFilter() error {
	value := "0"
	if s.bridgeNetfilter {
		value = "1"
		if _, err := os.Stat("/proc/sys/net/bridge"); errors.Is(err, fs.ErrNotExist) {
			if out, err := exec.Command("modprobe", "br_netfilter").CombinedOutput(); err != nil {
				return fmt.Errorf("load br_netfilter: %w\n%s", err, out)
			}
		}
	}
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte(value), 0)
		// A kernel that has not loaded br_netfilter is one that has it off.
		if err != nil && (s.bridgeNetfilter || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("switch br_netfilter: %w", err)
		}
	}
	return nil
}
