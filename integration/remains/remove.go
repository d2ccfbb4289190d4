package remains

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	netnsDir   = "/run/netns"
	cgroupRoot = "/sys/fs/cgroup"
)

// Remove ends every process of the engine, and removes its mounts, cgroups,
// namespaces and files, and at last the record. With keep, the files in the directory
// stay for inspection. A second call does nothing.
func (r Record) Remove(keep bool) error {
	if err := r.check(); err != nil {
		return err
	}
	if err := r.killAll(); err != nil {
		return err // what follows would fail too, and less clearly
	}
	sockets := r.ShimSockets()
	var faults []error
	note := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	note(r.unmount())
	note(r.removeCgroups())
	for _, name := range r.Netns {
		path := filepath.Join(netnsDir, name)
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			note(fmt.Errorf("unmount %s: %w", path, err))
		}
		note(os.Remove(path))
	}
	for _, socket := range sockets {
		note(os.Remove(socket))
	}
	if !keep {
		note(os.RemoveAll(r.Dir))
	}
	if len(faults) > 0 {
		return fmt.Errorf("remove engine %s: %w", r.Name, errors.Join(faults...))
	}
	note(os.Remove(r.path()))
	removeRegistry()
	return errors.Join(faults...)
}

// removeRegistry removes the registry with its last record, and then the directories
// that all engines share. It does not remove them earlier, because a starting engine
// may just have made them.
func removeRegistry() {
	if os.Remove(registry) != nil {
		return
	}
	os.Remove(netnsDir)
	// The machine's own dockerd and containerd have more files there.
	for dir, only := range map[string]string{"/run/docker": "plugins", "/run/containerd": "s"} {
		entries, err := os.ReadDir(dir)
		if err == nil && len(entries) == 1 && entries[0].Name() == only && os.Remove(filepath.Join(dir, only)) == nil {
			os.Remove(dir)
		}
	}
}

// unmount unmounts everything below the directory, the last mount first.
func (r Record) unmount() error {
	points, err := MountsBelow(r.Dir)
	if err != nil {
		return err
	}
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}

// MountsBelow lists the mount points at or below dir, in the order in which
// they were mounted.
func MountsBelow(dir string) ([]string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if point := unescape.Replace(fields[4]); point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points, nil
}

// cgroups lists the directories of the engine's cgroup and those below it, the
// deepest last: one tree for each hierarchy of version 1, or the one of version 2.
func (r Record) cgroups() []string {
	if r.Cgroup == "" {
		return nil
	}
	roots, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", r.Cgroup))
	roots = append(roots, filepath.Join(cgroupRoot, r.Cgroup))
	seen := map[string]bool{}
	var dirs []string
	for _, root := range roots {
		// /sys/fs/cgroup/cpu may be a link to cpu,cpuacct.
		root, err := filepath.EvalSymlinks(root)
		if err != nil || seen[root] {
			continue
		}
		seen[root] = true
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	return dirs
}

func (r Record) removeCgroups() error {
	dirs := r.cgroups()
	for i := len(dirs) - 1; i >= 0; i-- {
		// A cgroup is busy for a moment after its last process has ended, and
		// version 1 tells nobody when that is over.
		err := unix.Rmdir(dirs[i])
		for limit := time.Now().Add(3 * time.Second); err == unix.EBUSY && time.Now().Before(limit); err = unix.Rmdir(dirs[i]) {
			time.Sleep(5 * time.Millisecond)
		}
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove cgroup %s: %w", dirs[i], err)
		}
	}
	return nil
}
