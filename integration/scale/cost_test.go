package scale

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is the processor time that a process has used, with its children that have ended.
func cpu(b testing.TB, pid int) time.Duration {
	b.Helper()
	var ts unix.Timespec
	// The clock of a process, exact: CPUCLOCK_SCHED of the kernel.
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		b.Fatalf("read clock of process %d: %v", pid, err)
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	total := time.Duration(ts.Nano())
	for _, ticks := range fields[13:15] { // cutime and cstime, in hundredths of a second
		n, err := strconv.Atoi(ticks)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(n) * 10 * time.Millisecond
	}
	return total
}

// memory is a line of /proc/PID/status, in MB.
func memory(b testing.TB, pid int, line string) float64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for l := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1000
		}
	}
	b.Fatalf("no %s of process %d", line, pid)
	return 0
}

// recorded leaves in the directory that NETGUARD_SCALE_PERF names what perf records of a process
// while f runs, as NAME.data.
func recorded(b testing.TB, pid int, name string, f func()) {
	b.Helper()
	dir := os.Getenv("NETGUARD_SCALE_PERF")
	if dir == "" {
		f()
		return
	}
	cmd := exec.Command("perf", "record", "-q", "-e", "cpu-clock", "-F", "499", "-g", "-o", filepath.Join(dir, name+".data"), "-p", strconv.Itoa(pid))
	if err := cmd.Start(); err != nil {
		b.Fatalf("record the agent: %v (install linux-perf)", err)
	}
	f()
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // it ends by the signal
}

// calls is what a process asked of the kernel.
type calls struct{ messages, calls, forks float64 }

func (c *calls) add(o calls, times float64) {
	c.messages += times * o.messages
	c.calls += times * o.calls
	c.forks += times * o.forks
}

// traced counts what a process and its children ask of the kernel while f runs. It slows
// them down, so that nothing else is measured meanwhile. What strace saw stays where recorded
// leaves what it records, as NAME.strace.
func traced(b testing.TB, pid int, name string, f func()) calls {
	b.Helper()
	dir := os.Getenv("NETGUARD_SCALE_PERF")
	if dir == "" {
		dir = b.TempDir()
	}
	file := filepath.Join(dir, name+".strace")
	cmd := exec.Command("strace", "-f", "-v", "-o", file, "-e", "trace=sendto,sendmsg,execve", "-p", strconv.Itoa(pid))
	errs, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatalf("trace the agent: %v (install strace)", err)
	}
	lines := bufio.NewScanner(errs)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		b.Fatalf("trace the agent: strace says %q", lines.Text())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
	}()
	f()
	_ = cmd.Process.Signal(syscall.SIGINT)
	<-drained
	_ = cmd.Wait() // it ends by the signal
	trace, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer trace.Close()
	var c calls
	for read := bufio.NewReader(trace); ; {
		line, err := read.ReadString('\n')
		if n := strings.Count(line, "nlmsg_len="); n > 0 {
			c.calls++
			c.messages += float64(n)
		}
		if strings.Contains(line, "execve(") {
			c.forks++
		}
		if err != nil {
			return c
		}
	}
}
