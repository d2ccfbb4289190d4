package remains

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killAll ends every process of the engine and returns when none is left. New
// processes may start meanwhile (a shim may be starting a container), so it searches
// until it finds none.
func (r Record) killAll() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		pids, err := r.Processes()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("end engine %s: processes %v do not end", r.Name, pids)
		}
		// In cgroup version 1 a frozen (paused) process cannot even die.
		for _, dir := range r.cgroups() {
			os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		}
		var ended []unix.PollFd
		for _, pid := range pids {
			// A pidfd always names the same process. Between the search and the kill,
			// the number may have been reused for another process.
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			if r.owns(pid, r.namespaces()) {
				unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			ended = append(ended, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		await(ended, 500*time.Millisecond)
	}
}

// await waits until every process has ended or the time is over. Then it closes
// the descriptors.
func await(processes []unix.PollFd, atMost time.Duration) {
	end := time.Now().Add(atMost)
	for _, p := range processes {
		left := max(time.Until(end), 0)
		unix.Poll([]unix.PollFd{p}, int(left.Milliseconds()))
		unix.Close(int(p.Fd))
	}
}

// Processes lists the living processes of the engine: those in one of its
// network namespaces, those of its containers, and those that carry its mark.
func (r Record) Processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	spaces := r.namespaces()
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != os.Getpid() && r.owns(pid, spaces) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func (r Record) owns(pid int, spaces []string) bool {
	if _, state, err := stat(pid); err != nil || state == "Z" || state == "X" {
		return false
	}
	if space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && slices.Contains(spaces, space) {
		return true
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil {
		for entry := range strings.SplitSeq(string(env), "\x00") {
			if entry == r.Mark() {
				return true
			}
		}
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || r.Cgroup == "" {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		// "4:memory:/ngt-1-1/3f…"
		if _, path, ok := strings.Cut(strings.TrimSpace(line), ":/"); ok &&
			(path == r.Cgroup || strings.HasPrefix(path, r.Cgroup+"/")) {
			return true
		}
	}
	return false
}

// namespaces lists the engine's network namespaces as /proc/PID/ns/net names them.
func (r Record) namespaces() []string {
	var spaces []string
	for _, name := range r.Netns {
		var st unix.Stat_t
		// A file that is not (or no longer) a mount has another file system's
		// inode, which could be the number of a stranger's namespace.
		var fs unix.Statfs_t
		path := filepath.Join(netnsDir, name)
		if unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC || unix.Stat(path, &st) != nil {
			continue
		}
		spaces = append(spaces, fmt.Sprintf("net:[%d]", st.Ino))
	}
	return spaces
}
