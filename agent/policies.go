package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"netguard/agent/config"
	"netguard/netpolicy"
)

// policyFiles are the names of the files in the policy directory that count.
var policyFiles = []string{"*.yaml", "*.yml"}

// maxPolicyFiles bounds the directory.
const maxPolicyFiles = 1000

// readPolicies reads the files of a policy directory; none where there is no
// directory.
func readPolicies(dir string) ([]netpolicy.Source, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	var out []netpolicy.Source
	for _, e := range entries {
		if !config.Globs(policyFiles).Match(e.Name()) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if len(out) == maxPolicyFiles {
			return nil, fmt.Errorf("read policies: %s has more than %d files", dir, maxPolicyFiles)
		}
		name := filepath.Join(dir, e.Name())
		data, err := readPolicy(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went meanwhile, or is a link to nothing
		}
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		out = append(out, netpolicy.Source{Name: name, Data: data})
	}
	return out, nil
}

func readPolicy(name string) ([]byte, error) {
	// Opening a FIFO would wait for its writer.
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: move it out of the policy directory", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than is allowed: netpolicy says that it is too large.
	return io.ReadAll(io.LimitReader(f, netpolicy.MaxFileBytes+1))
}

// policies are the policy files in force.
type policies struct {
	dir string
	// monitor: what is wrong isolates nobody, and is told.
	monitor bool

	now   atomic.Pointer[netpolicy.Catalog]
	fault atomic.Pointer[string] // why the directory cannot be read; nil if it can
}

// start reads the directory for the first time. A file with a fault isolates whom
// it is about; where that cannot be told there is no safe start.
func (p *policies) start() error {
	sources, err := readPolicies(p.dir)
	if err != nil {
		return err
	}
	c := netpolicy.Load(sources)
	if unclear := c.Unclear(); len(unclear) > 0 && !p.monitor {
		return fmt.Errorf("the agent does not start with policy files that have faults, and of which it cannot be told whom they are about (%s): mend or remove them\n%w",
			strings.Join(unclear, ", "), c.Faults())
	}
	p.now.Store(&c)
	return nil
}

// reload reads the directory again. A file with a fault changes nothing.
func (p *policies) reload(log *slog.Logger) {
	sources, err := readPolicies(p.dir)
	if err != nil {
		text := fmt.Sprintf("%v: the policies before stay in force", err)
		p.fault.Store(&text)
		log.Error("policies cannot be read; those before stay in force", "error", err)
		return
	}
	p.fault.Store(nil)
	before := p.now.Load()
	c := netpolicy.Load(sources).Keep(*before)
	p.now.Store(&c)
	if faults := c.Faults(); len(faults) > 0 {
		log.Error("policy files have faults; what they said before stays in force", "error", faults)
	}
	log.Info("policies read", "dir", p.dir, "files", len(c.Files), "policies", len(c.Policies()))
}

// findings are what is wrong with the policy files.
func (p *policies) findings() []string {
	var out []string
	if fault := p.fault.Load(); fault != nil {
		out = append(out, *fault)
	}
	c := p.now.Load()
	if c == nil {
		return out
	}
	for _, f := range c.Files {
		then := "whom it is about is isolated until it is mended"
		switch {
		case p.monitor && f.Unclear:
			then = "it cannot be told whom it is about: an agent that enforces does not start before it is mended or removed"
		case p.monitor && !f.Kept:
			then = "whom it is about would be isolated until it is mended"
		case f.Kept:
			then = "what it said before stays in force"
		case f.Unclear && len(f.Selects) == 0:
			then = "it cannot be told whom it is about: nobody is isolated by it, and an agent that starts does not start before it is mended or removed"
		case f.Unclear:
			then += ", as far as that can be told"
		}
		for _, fault := range f.Faults {
			out = append(out, fmt.Sprintf("policy %v; %s", fault, then))
		}
	}
	return out
}
