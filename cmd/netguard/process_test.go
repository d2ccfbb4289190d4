package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"netguard/cmd/netguard/term"
)

// command is netguard in a process of its own.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envMain+"=1", "TERM=xterm", "NO_COLOR=")
	return cmd
}

// openPTY gives both ends of a terminal of 100 columns and 30 lines.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// onTerminal runs netguard on a terminal, interrupts it once its output is as
// wanted, and returns all output.
func onTerminal(t *testing.T, cmd *exec.Cmd, wanted func(string) bool) string {
	t.Helper()
	master, slave := openPTY(t)
	cmd.Stdout = slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var all bytes.Buffer
	signalled := false
	for buf := make([]byte, 4096); ; {
		n, err := master.Read(buf)
		all.Write(buf[:n])
		if err != nil { // EIO: the other end is closed
			break
		}
		if !signalled && wanted(all.String()) {
			signalled = true
			cmd.Process.Signal(os.Interrupt)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return all.String()
}

func TestProcess(t *testing.T) {
	t.Run("watch_on_a_terminal_ends_well_with_ctrl_c", func(t *testing.T) {
		socket := serve(t, always(healthy()))
		cmd := command(t, "status", "--watch", "--interval", "100ms", "--socket", socket)
		out := onTerminal(t, cmd, func(s string) bool { return strings.Count(s, clearBelow) >= 2 })
		if !strings.HasPrefix(out, takeScreen) || !strings.HasSuffix(out, giveScreen) {
			t.Errorf("%q", out)
		}
	})
	never := func(string) bool { return false }
	t.Run("a_terminal_has_colours", func(t *testing.T) {
		socket := serve(t, always(sick()))
		out := onTerminal(t, command(t, "status", "--socket", socket), never)
		if !strings.Contains(out, term.Red.On("!", true)) {
			t.Errorf("%q", out)
		}
		plain := command(t, "status", "--socket", socket)
		plain.Env = append(plain.Env, "NO_COLOR=1")
		if out := onTerminal(t, plain, never); strings.Contains(out, "\x1b") {
			t.Errorf("colours in spite of NO_COLOR: %q", out)
		}
	})
	t.Run("watch_on_a_pipe_ends_well_with_SIGTERM", func(t *testing.T) {
		socket := serve(t, always(healthy()))
		cmd := command(t, "status", "--watch", "--interval", "100ms", "-o", "json", "--socket", socket)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for range 2 {
			if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "{") {
				t.Error(line, err)
			}
		}
		cmd.Process.Signal(syscall.SIGTERM)
		io.Copy(io.Discard, lines)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}
