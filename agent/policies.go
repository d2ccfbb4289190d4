package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"netguard/agent/config"
	"netguard/internal/smallfile"
	"netguard/netpolicy"
)

// policyFiles are the names of the files in the policy directory that count.
var policyFiles = []string{"*.yaml", "*.yml"}

// maxPolicyFiles bounds the directory.
const maxPolicyFiles = 1000

// readPolicies reads the files of a policy directory. A file that cannot be read becomes a
// Source with an error. The other files are read all the same.
func readPolicies(dir string) ([]netpolicy.Source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	var out []netpolicy.Source
	for _, e := range entries {
		if !config.Globs(policyFiles).Match(e.Name()) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if len(out) == maxPolicyFiles {
			return nil, fmt.Errorf("read policies: %s has more than %d files: put several policies into one", dir, maxPolicyFiles)
		}
		name := filepath.Join(dir, e.Name())
		data, err := smallfile.Read(name, netpolicy.MaxFileBytes) // netpolicy says that it is too large
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // it went meanwhile, or is a link to nothing
		case errors.Is(err, smallfile.ErrNotRegular):
			err = errors.New("it is not a regular file: move it out of the policy directory")
		case err != nil:
			err = fmt.Errorf("it cannot be read: %w", err)
		}
		out = append(out, netpolicy.Source{Name: name, Data: data, Err: err})
	}
	return out, nil
}

// policies are the policy files in force.
type policies struct {
	dir string
	// monitor: what is wrong isolates nobody, and is told.
	monitor bool

	now   atomic.Pointer[netpolicy.Catalog]
	fault atomic.Pointer[string] // why the directory cannot be read; nil if it can
	pause func(context.Context)  // waits before a missing policy counts as removed
}

func newPolicies(dir string, monitor bool) *policies {
	return &policies{dir: dir, monitor: monitor, pause: await}
}

// start reads the directory for the first time. A file with a fault isolates the containers
// that it selects. If the fault hides which containers these are, no start is safe: then start
// gives an error, unless the agent only monitors.
func (p *policies) start() error {
	sources, err := readPolicies(p.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // no directory is no policies
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

// confirm is how long a policy file may be missing, empty or half written before its policies
// are removed. It is the same for a missing or empty configuration. Editors and copies need a
// moment.
const confirm = 250 * time.Millisecond

// await waits for confirm. An editor that has finished sends no event to wait for.
func await(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(confirm):
	}
}

// reload reads the directory again. A file with a fault takes back nothing that is enforced.
// See netpolicy.Catalog.Reload.
func (p *policies) reload(ctx context.Context, log *slog.Logger) {
	before := p.now.Load()
	c, err := p.read(*before)
	if err != nil || len(before.Loses(c)) > 0 {
		if p.pause(ctx); ctx.Err() != nil {
			return
		}
		c, err = p.read(*before)
	}
	if err != nil {
		text := fmt.Sprintf("%v: the policies before stay in force", err)
		p.fault.Store(&text)
		log.Error("policies cannot be read; those before stay in force", "error", err)
		return
	}
	p.fault.Store(nil)
	p.now.Store(&c)
	if faults := c.Faults(); len(faults) > 0 {
		log.Error("policy files have faults; nothing that was enforced of them is lost", "error", faults)
	}
	log.Info("policies read", "dir", p.dir, "files", len(c.Files), "policies", len(c.Policies()))
}

// read gives what the directory says now.
func (p *policies) read(before netpolicy.Catalog) (netpolicy.Catalog, error) {
	sources, err := readPolicies(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		// Perhaps a file system was unmounted, or a deployment failed. The policies must stay
		// in force then.
		if err = nil; len(before.Files) > 0 {
			err = fmt.Errorf("the policy directory %s is gone; to have no policies make it, empty", p.dir)
		}
	}
	if err != nil {
		return netpolicy.Catalog{}, err
	}
	return before.Reload(sources), nil
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
		then := "whom it is about, or was since it last had none, is isolated until it is mended or removed"
		switch {
		case p.monitor && f.Unclear:
			then = "it cannot be told whom it is about: an agent that enforces does not start before it is mended or removed"
		case p.monitor && !f.Kept:
			then = "whom it is about would be isolated until it is mended"
		case f.Kept:
			then = "what it said before stays in force until it is mended or removed"
		case f.Unclear && len(f.Selects) == 0:
			then = "it cannot be told whom it is about: it changes nothing, nobody is isolated by it, and an agent that starts does not start before it is mended or removed"
		case f.Unclear:
			then = "whom it is about, as far as that can be told, or was since it last had none, is isolated until it is mended or removed; an agent that starts does not start before"
		}
		for _, fault := range f.Faults {
			out = append(out, fmt.Sprintf("policy %v; %s", fault, then))
		}
	}
	return out
}
