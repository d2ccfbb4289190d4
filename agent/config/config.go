// Package config reads what the operator wrote: /etc/netguard/netguard.yaml, and the flags that
// override it.
//
// It promises that a Config it returns is valid, whatever the file held, and
// that a file with faults gives all of them at once, each with its line, its
// column, the value that was written and what was meant.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"path"
	"slices"
	"strings"

	"netguard/internal/plain"
	"netguard/internal/smallfile"
	"netguard/internal/strictyaml"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

// The places that hold when nothing else is said.
const (
	DefaultPath      = "/etc/netguard/netguard.yaml"
	DefaultPolicyDir = "/etc/netguard/policies"
	DefaultSocket    = "/run/netguard/netguard.sock"
	DefaultMetrics   = "127.0.0.1:9477"
)

// MaxBytes bounds the file, so that a wrong path does not fill the memory.
const MaxBytes = 1 << 20

// Config is a valid configuration. Get one from Load, Parse or Default.
type Config struct {
	Exclude   Globs // networks that netguard leaves alone
	Unguarded Globs // networks whose ports are not guarded
	Uplinks   Globs // ports of Docker's bridges that are the host's own
	// AdmissionOpen lets an endpoint send and receive before all its rules are in the kernel,
	// and while one of its labels is wrong.
	AdmissionOpen bool
	Storm         guard.Storm
	Connections   uint32 // how many a container may have open at a time; 0 is no limit
	// Claims are the prefixes from which labels may name extra addresses. If there are none, a
	// label may name any single address, but no prefix.
	Claims []netip.Prefix
	// DHCPServers are the networks on which containers may be DHCP servers by their label.
	DHCPServers Globs
	// Fragments says what becomes of fragments that containers send.
	Fragments Fragments
	// FragmentRate is how many fragments a second a container may send; 0 is no limit.
	FragmentRate uint32
	// Limits are the defaults and caps of bandwidth; no default is above its cap.
	Limits shaper.Operator
	// AllowOptOut says that the label netguard.enabled=false counts.
	AllowOptOut bool
	// SwarmPortsOpen lets containers of a Swarm's node send to Swarm's own ports.
	SwarmPortsOpen bool
	// AdmitUnknown admits endpoints that Docker lists and that are of no known kind.
	AdmitUnknown bool
	// TrustImageLabels are the images whose labels count as if the containers' creators
	// had set them: patterns for MatchImage.
	TrustImageLabels Globs
	Socket           string // absolute path of the control socket
	Metrics          string // host:port of the Prometheus listener; "" is none
	DockerHost       string // URL; "" is Docker's own default
	PolicyDir        string // absolute path
	Log              Log
}

// Fragments says what becomes of fragments of IP.
type Fragments string

const (
	// FragmentsAuto refuses fragments if a policy has selected a container, and no program at
	// the ports can see what the kernel writes into a packet after the policies judged it.
	FragmentsAuto   Fragments = "auto"
	FragmentsPass   Fragments = "pass"
	FragmentsRefuse Fragments = "refuse"
)

// Log says how the agent logs.
type Log struct {
	Level  slog.Level
	Format Format
}

// Format is how a log line is written.
type Format string

const (
	Text Format = "text"
	JSON Format = "json"
)

// Handler gives the slog handler that writes as the configuration says.
func (l Log) Handler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: l.Level}
	if l.Format == JSON {
		return slog.NewJSONHandler(plain.Writer(w), opts)
	}
	return slog.NewTextHandler(w, opts)
}

// Globs are patterns of names: * stands for any characters, ? for one, [a-z]
// for a range.
type Globs []string

// Match tells whether one of the patterns fits the whole name.
func (g Globs) Match(name string) bool {
	return slices.ContainsFunc(g, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil // Parse refuses patterns that have an error
	})
}

// MatchImage tells whether one of the patterns fits a whole image reference. Unlike in Match, *
// and ? stand for slashes too: the parts between the slashes mean nothing here.
func (g Globs) MatchImage(ref string) bool {
	const slash = "\x00" // in no reference, and in no pattern
	return slices.ContainsFunc(g, func(pattern string) bool {
		ok, err := path.Match(strings.ReplaceAll(pattern, "/", slash), strings.ReplaceAll(ref, "/", slash))
		return ok && err == nil
	})
}

// Default is the configuration of a host without a file.
func Default() Config {
	return Config{
		Socket:    DefaultSocket,
		Metrics:   DefaultMetrics,
		PolicyDir: DefaultPolicyDir,
		Storm:     guard.DefaultStorm,
		Log:       Log{Level: slog.LevelInfo, Format: Text},

		Connections:  guard.DefaultConnections,
		Fragments:    FragmentsAuto,
		FragmentRate: guard.DefaultFragmentRate,
	}
}

// Load reads a file. If the file does not exist, it gives the defaults. But if explicit says
// that the operator named the file, that is an error. Faults in the file come as Faults.
func Load(name string, explicit bool) (Config, error) {
	data, err := smallfile.Read(name, MaxBytes) // Parse says that it is too large
	switch {
	case errors.Is(err, fs.ErrNotExist) && !explicit:
		return Default(), nil
	case errors.Is(err, smallfile.ErrNotRegular):
		return Config{}, fmt.Errorf("read configuration: %w: name the YAML file itself", err)
	case err != nil:
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(data, name)
}

// Parse reads the text of a configuration. The name stands in its faults. An
// error is always Faults.
func Parse(data []byte, name string) (Config, error) {
	if len(data) > MaxBytes {
		return Config{}, Faults{{Place: strictyaml.Place{File: name, Line: 1, Column: 1}, Text: fmt.Sprintf("the file is larger than %d bytes: is it the right one?", MaxBytes)}}
	}
	d := newDecoder(name)
	var r raw
	if root := d.document(data); root != nil {
		d.mapping(r.fields(&d)...)(root, whole)
	}
	c := d.convert(r)
	if len(d.Found) > 0 {
		d.Found.Sort()
		return Config{}, Faults(d.Found)
	}
	return c, nil
}

// Faults are all that is wrong with a configuration, in the order of the file. They have a type
// of their own, so that a caller can tell them from the faults of policies.
type Faults strictyaml.Faults

// Error lists the faults, one a line.
func (f Faults) Error() string { return strictyaml.Faults(f).Error() }
