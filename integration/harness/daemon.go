package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is the running dockerd.
type daemon struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// dockerdBinary is the engine under test: NETGUARD_TEST_DOCKERD, or the one in PATH. A
// named engine finds containerd, runc and docker-proxy in its own directory first.
func dockerdBinary() string {
	if path := os.Getenv("NETGUARD_TEST_DOCKERD"); path != "" {
		return path
	}
	return "dockerd"
}

// dockerdMajor returns the first number of the engine's version.
var dockerdMajor = sync.OnceValues(func() (int, error) {
	out, err := exec.Command(dockerdBinary(), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask dockerd for its version: %w (install docker.io, or name a binary in NETGUARD_TEST_DOCKERD)", err)
	}
	m := regexp.MustCompile(`version (\d+)\.`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("ask dockerd for its version: it says %q", out)
	}
	return strconv.Atoi(string(m[1]))
})

func (e *Engine) daemonFlags() ([]string, error) {
	major, err := dockerdMajor()
	if err != nil {
		return nil, err
	}
	flags := []string{
		"--config-file", e.path("daemon.json"),
		"--data-root", e.path("data"),
		"--exec-root", e.path("exec"),
		"--pidfile", e.path("dockerd.pid"),
		"--host", e.Host(),
		"--cgroup-parent", "/" + e.record.Cgroup,
		// systemd would put the containers into cgroups that are not on record.
		"--exec-opt", "native.cgroupdriver=cgroupfs",
	}
	if e.set.ipv6 {
		flags = append(flags, "--ipv6", "--fixed-cidr-v6", "fd00:d0c::/64", "--ip6tables")
		if major < 27 {
			flags = append(flags, "--experimental")
		}
	}
	return append(flags, e.set.flags...), nil
}

func (e *engine) writeDaemonConfig() error {
	config := map[string]any{}
	if e.set.config != "" {
		if err := json.Unmarshal([]byte(e.set.config), &config); err != nil {
			return fmt.Errorf("read daemon.json: %w", err)
		}
	}
	if major, err := dockerdMajor(); err != nil {
		return err
	} else if major < 23 {
		// Otherwise a key is written to /etc/docker. There is no flag for it.
		config["deprecated-key-path"] = e.path("key.json")
	}
	raw, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(e.path("daemon.json"), raw, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write daemon.json: %w", err)
	}
	return nil
}

// StartDaemon starts dockerd with the data that it had, and waits until it is
// ready.
func (e *Engine) StartDaemon() {
	e.tb.Helper()
	e.must(e.startDaemon(), "start dockerd")
}

func (e *Engine) startDaemon() error {
	flags, err := e.daemonFlags()
	if err != nil {
		return err
	}
	if err := e.writeDaemonConfig(); err != nil {
		return err
	}
	log, err := os.OpenFile(e.path("dockerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	n, err := listenNotify(e.path("dockerd.ready"))
	if err != nil {
		return err
	}
	defer n.close()

	binary := dockerdBinary()
	cmd := e.Command(context.Background(), binary, flags...)
	cmd.Env = append(cmd.Env, n.env(),
		// The engine runs itself several times for each container. Garbage collection at
		// the start is a quarter of the cost of each run.
		"GOGC=800",
		// Without this, dockerd would report these bridges to the machine's firewalld.
		"DBUS_SYSTEM_BUS_ADDRESS=unix:path="+e.path("no-dbus"))
	if dir := filepath.Dir(binary); dir != "." {
		cmd.Env = append(cmd.Env, "PATH="+strings.Join(append(e.binDirs(), dir, os.Getenv("PATH")), ":"))
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		return err
	}
	d := &daemon{cmd: cmd, ended: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(d.ended)
	}()
	e.daemon = d
	ctx, cancel := e.ctx()
	defer cancel()
	select {
	case <-n.ready:
		e.Client.NegotiateAPIVersion(ctx)
		return e.Do(e.set.bridgeFilter)
	case <-d.ended:
		return fmt.Errorf("it ended with %v:\n%s", cmd.ProcessState, e.logTail(20))
	case <-ctx.Done():
		return fmt.Errorf("it is not ready: %w\n%s", ctx.Err(), e.logTail(20))
	}
}

func (e *Engine) binDirs() []string {
	if e.set.legacy {
		return []string{e.path("bin")}
	}
	return nil
}

// StopDaemon asks dockerd to end (SIGTERM), and waits for that. Without
// --live-restore it stops its containers first.
func (e *Engine) StopDaemon() {
	e.tb.Helper()
	e.endDaemon(syscall.SIGTERM)
}

// KillDaemon ends dockerd as a crash does. Its containers run on.
func (e *Engine) KillDaemon() {
	e.tb.Helper()
	e.endDaemon(syscall.SIGKILL)
	e.must(e.forgetContainerd(), "end containerd of %s", e.name)
}

// forgetContainerd waits until the containerd of a killed dockerd is gone; it dies
// with dockerd. If the machine's init collects it late, the next dockerd would take
// the zombie for a living containerd, and wait for it in vain.
func (e *engine) forgetContainerd() error {
	file := e.path("exec", "containerd", "containerd.pid")
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil // it uses the machine's containerd
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		defer unix.Close(fd)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if n == 0 && err == nil {
			return fmt.Errorf("process %d still runs after %v", pid, patience)
		}
	}
	return os.Remove(file)
}

// RestartDaemon stops dockerd and starts it again.
func (e *Engine) RestartDaemon() {
	e.tb.Helper()
	e.StopDaemon()
	e.StartDaemon()
}

func (e *Engine) endDaemon(s syscall.Signal) {
	e.tb.Helper()
	if e.daemon == nil {
		e.tb.Fatalf("end dockerd of %s: it does not run", e.name)
	}
	if err := e.daemon.cmd.Process.Signal(s); err != nil {
		e.tb.Fatalf("end dockerd of %s: %v", e.name, err)
	}
	select {
	case <-e.daemon.ended:
	case <-time.After(2 * patience):
		e.tb.Fatalf("dockerd of %s does not end %v after %v", e.name, 2*patience, s)
	}
	e.daemon = nil
}

// DaemonLog returns what dockerd has logged.
func (e *Engine) DaemonLog() string {
	e.tb.Helper()
	raw, err := os.ReadFile(e.path("dockerd.log"))
	e.must(err, "read dockerd's log")
	return string(raw)
}

// logTail returns the last lines of dockerd's log for a failure's message, without
// the many lines that say nothing useful.
func (e *engine) logTail(lines int) string {
	raw, err := os.ReadFile(e.path("dockerd.log"))
	if err != nil {
		return err.Error()
	}
	var telling []string
	for line := range strings.Lines(string(raw)) {
		if !strings.Contains(line, "module=grpc") && !strings.Contains(line, "msg=\"loading plugin") &&
			!strings.Contains(line, "msg=\"skip loading plugin") && !strings.Contains(line, "msg=serving...") {
			telling = append(telling, line)
		}
	}
	return strings.Join(telling[max(0, len(telling)-lines):], "")
}
