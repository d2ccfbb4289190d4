package remains

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// registry holds one file for each engine. It is on a tmpfs, so a reboot removes it
// together with the namespaces and processes that it lists.
const registry = "/run/netguard-test"

// Record lists what one engine has on the machine.
type Record struct {
	// Name is unique among the engines that live.
	Name  string
	Owner Owner
	// Dir is the engine's directory, with everything mounted below it.
	Dir string
	// Netns are the names of its network namespaces, below /run/netns.
	Netns []string
	// Cgroup is the parent of its containers' cgroups, without a slash. It may
	// be empty: there are none.
	Cgroup string
}

// prefix begins every name on record. So a damaged record cannot name the machine's own
// directories and cgroups.
const prefix = "ngt-"

func (r Record) path() string { return filepath.Join(registry, r.Name+".json") }

// Mark is an entry for the environment of every process of the engine. It shows
// processes that are in none of the engine's namespaces and cgroups.
func (r Record) Mark() string { return "NETGUARD_TEST_ENGINE=" + r.Name }

func (r Record) check() error {
	names := append([]string{r.Name, filepath.Base(r.Dir)}, r.Netns...)
	if r.Cgroup != "" {
		names = append(names, r.Cgroup)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) || strings.Contains(name, "/") {
			return fmt.Errorf("check record %q: %q does not begin with %q", r.Name, name, prefix)
		}
	}
	if !filepath.IsAbs(r.Dir) || filepath.Clean(r.Dir) != r.Dir {
		return fmt.Errorf("check record %q: directory %q is not a plain absolute path", r.Name, r.Dir)
	}
	return nil
}

// Write writes the record to its file. Call it before you make what it lists.
func (r Record) Write() error {
	if err := r.check(); err != nil {
		return err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", r.Name, err)
	}
	// Another process that removes the last record may be removing the registry now.
	for range 10 {
		if err = r.put(raw); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

func (r Record) put(raw []byte) error {
	if err := os.MkdirAll(registry, 0o700); err != nil {
		return err
	}
	// Half a record would never be swept: write beside, then rename.
	if err := os.WriteFile(r.path()+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(r.path()+".new", r.path())
}

// Sweep removes what dead owners left, and returns the names of their engines. If
// another process is sweeping, it waits.
func Sweep() ([]string, error) {
	return sweep(func(o Owner) bool { return !o.Alive() })
}

// SweepOwner removes what the owner with this process id left. Call it
// when that process is known to be ending.
func SweepOwner(pid int) ([]string, error) {
	return sweep(func(o Owner) bool { return o.PID == pid || !o.Alive() })
}

func sweep(dead func(Owner) bool) ([]string, error) {
	unlock, err := lock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// The registry goes with its last record; whoever waits for the lock then
	// holds one of a file that is gone, and finds nothing to do.
	defer removeRegistry()
	defer unlock()

	files, err := filepath.Glob(filepath.Join(registry, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var swept []string
	var faults []error
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its owner has removed it
		}
		var r Record
		if err == nil {
			err = json.Unmarshal(raw, &r)
		}
		if err == nil && r.Name != strings.TrimSuffix(filepath.Base(file), ".json") {
			err = fmt.Errorf("it names %q", r.Name)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("read record %s: %w", file, err))
			continue
		}
		if !dead(r.Owner) {
			continue
		}
		if err := r.Remove(false); err != nil {
			faults = append(faults, err)
			continue
		}
		swept = append(swept, r.Name)
	}
	return swept, errors.Join(faults...)
}

// lock takes the registry's lock. The lock's file exists only while it is held.
func lock() (unlock func(), err error) {
	path := filepath.Join(registry, "lock")
	if _, err := os.Stat(registry); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("take lock %s: %w", path, err)
	}
	return func() { os.Remove(path); f.Close() }, nil
}
