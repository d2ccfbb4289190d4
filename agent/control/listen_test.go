package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// envVictim makes the test's binary an agent that holds a socket until it is killed.
const envVictim = "NETGUARD_TEST_VICTIM"

func victim(socket string) {
	if _, err := listen(socket); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("listening")
	select {}
}

// startVictim gives an agent in a process of its own, which listens.
func startVictim(t *testing.T, socket string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envVictim+"="+socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line := make([]byte, 256)
	n, _ := out.Read(line)
	if got := string(line[:n]); got != "listening\n" {
		t.Fatal(got)
	}
	return cmd
}

func TestListen(t *testing.T) {
	socketOf := func(t *testing.T) string { return filepath.Join(t.TempDir(), "netguard", "ng.sock") }
	mustListen := func(t *testing.T, socket string) *place {
		t.Helper()
		p, err := listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.release() })
		return p
	}
	for name, umask := range map[string]int{"open": 0, "usual": 0o022, "strict": 0o077} {
		t.Run("modes_do_not_depend_on_the_umask/"+name, func(t *testing.T) {
			socket := socketOf(t)
			defer unix.Umask(unix.Umask(umask))
			mustListen(t, socket)
			for name, want := range map[string]fs.FileMode{
				filepath.Dir(socket): dirMode, socket: socketMode, socket + ".lock": lockMode,
			} {
				if info, err := os.Lstat(name); err != nil || info.Mode().Perm() != want {
					t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
				}
			}
		})
	}
	t.Run("leaves_the_mode_of_a_directory_that_was_there", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		mustListen(t, filepath.Join(dir, "ng.sock"))
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
			t.Error(info.Mode(), err)
		}
	})
	t.Run("a_living_agent_is_named", func(t *testing.T) {
		socket := socketOf(t)
		other := startVictim(t, socket)
		_, err := listen(socket)
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("another netguard agent (pid %d) answers at %s", other.Process.Pid, socket)) {
			t.Error(err)
		}
	})
	t.Run("what_a_killed_agent_left_is_no_obstacle", func(t *testing.T) {
		socket := socketOf(t)
		other := startVictim(t, socket)
		other.Process.Kill()
		other.Wait()
		if _, err := os.Lstat(socket); err != nil {
			t.Fatal("the killed one left nothing: the test tests nothing:", err)
		}
		mustListen(t, socket)
		if pid, answers := listener(socket); !answers || pid != os.Getpid() {
			t.Errorf("pid %d, answers %v", pid, answers)
		}
	})
	t.Run("one_that_does_not_answer_yet_is_named", func(t *testing.T) {
		socket := socketOf(t)
		p := mustListen(t, socket)
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
		_, err := listen(socket)
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d) holds %s", os.Getpid(), p.lock.Name())) {
			t.Error(err)
		}
	})
	t.Run("one_whose_lock_was_removed_is_not_pushed_aside", func(t *testing.T) {
		socket := socketOf(t)
		p := mustListen(t, socket)
		if err := os.Remove(p.lock.Name()); err != nil {
			t.Fatal(err)
		}
		if _, err := listen(socket); !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
		if _, answers := listener(socket); !answers {
			t.Error("it does not answer any more")
		}
	})
	t.Run("a_file_that_is_no_socket_is_not_removed", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "precious")
		if err := os.WriteFile(socket, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listen(socket); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Error(err)
		}
		if data, err := os.ReadFile(socket); err != nil || string(data) != "data" {
			t.Error(string(data), err)
		}
		if _, err := os.Lstat(socket + ".lock"); !errors.Is(err, fs.ErrNotExist) {
			t.Error("the lock is left", err)
		}
	})
	t.Run("release_leaves_another_one's_socket", func(t *testing.T) {
		socket := socketOf(t)
		p := mustListen(t, socket)
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
		other, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := p.release(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(socket); err != nil {
			t.Error(err)
		}
	})
	t.Run("of_many_that_race_one_has_it_at_a_time", func(t *testing.T) {
		socket := socketOf(t)
		var holders atomic.Int32
		var racers sync.WaitGroup
		for range 8 {
			racers.Go(func() {
				for tries, had := 0, false; tries < 200 || !had; tries++ { // each has it once at least
					p, err := listen(socket)
					if err != nil {
						if !errors.Is(err, ErrInUse) {
							t.Error(err)
						}
						continue
					}
					had = true
					if n := holders.Add(1); n != 1 {
						t.Errorf("%d have it", n)
					}
					if _, answers := listener(socket); !answers {
						t.Error("the one who has it does not answer")
					}
					holders.Add(-1)
					if err := p.release(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		racers.Wait()
	})
}
