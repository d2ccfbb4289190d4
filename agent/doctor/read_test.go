package doctor

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"netguard/agent/config"
	"netguard/netpolicy/iptables"
)

func FuzzNumbers(f *testing.F) {
	for _, v := range []string{"20.10.24+dfsg1", "v5.4", "dev", "", "6.", "-1.2"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, version string) {
		major, minor, ok := numbers(version)
		if !ok {
			return
		}
		if a, b, ok := numbers(fmt.Sprintf("%d.%d", major, minor)); !ok || a != major || b != minor || major < 0 || minor < 0 {
			t.Errorf("%q is %d.%d, and that is %d.%d", version, major, minor, a, b)
		}
	})
}

func TestEffective(t *testing.T) {
	caps, err := effective("Name:\tx\nCapPrm:\t0\nCapEff:\t00000000a80435fb\n")
	if err != nil || caps != 0xa80435fb {
		t.Errorf("%x %v", caps, err)
	}
	// It names the file that readHost reads.
	if _, err := effective("Name:\tx\n"); err == nil || !strings.HasSuffix(err.Error(), " /proc/thread-self/status") {
		t.Errorf("capabilities out of nothing: %v", err)
	}
}

func TestHolder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sock.lock")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	find := func() int {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		return holder(string(locks), name)
	}
	if pid := find(); pid != 0 {
		t.Errorf("%d holds a lock that nobody took", pid)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if pid := find(); pid != os.Getpid() {
		t.Errorf("%d holds the lock instead of %d", pid, os.Getpid())
	}
	if pid := holder("1: FLOCK ADVISORY WRITE\nx\n", name); pid != 0 {
		t.Errorf("%d holds a lock of half a line", pid)
	}
	if pid := holder("", filepath.Join(t.TempDir(), "none")); pid != 0 {
		t.Errorf("%d holds a lock that is not there", pid)
	}
}

// engine answers at a socket as a dockerd does, with this /info.
func engine(t *testing.T, info any) config.Config {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
		case strings.HasSuffix(r.URL.Path, "/info") && info == nil:
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasSuffix(r.URL.Path, "/info"):
			_ = json.NewEncoder(w).Encode(info)
		case strings.HasSuffix(r.URL.Path, "/networks"):
			fmt.Fprintln(w, `[{"Id":"h","Name":"host","Driver":"host"}]`)
		case strings.HasSuffix(r.URL.Path, "/networks/h"):
			fmt.Fprintln(w, `{"Id":"h","Name":"host","Driver":"host"}`)
		default:
			fmt.Fprintln(w, "[]")
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	cfg := config.Default()
	cfg.DockerHost = "unix://" + socket
	return cfg
}

func TestReadDocker(t *testing.T) {
	t.Run("a_rootless_engine", func(t *testing.T) {
		d := readDocker(t.Context(), engine(t, map[string]any{"ServerVersion": "27.1.0", "LiveRestoreEnabled": true,
			"SecurityOptions": []string{"name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"}}))
		if d.Err != "" || d.InfoErr != "" || d.Version != "27.1.0" || !d.Rootless || !d.LiveRestore {
			t.Errorf("%+v", d)
		}
	})
	t.Run("a_usual_engine", func(t *testing.T) {
		d := readDocker(t.Context(), engine(t, map[string]any{"SecurityOptions": []string{"name=seccomp,profile=rootless-like"}}))
		if d.Err != "" || d.InfoErr != "" || d.Rootless || d.LiveRestore {
			t.Errorf("%+v", d)
		}
	})
	t.Run("an_engine_that_does_not_tell", func(t *testing.T) {
		d := readDocker(t.Context(), engine(t, nil))
		if d.Err != "" || !strings.Contains(d.InfoErr, "500") {
			t.Errorf("%+v", d)
		}
	})
	t.Run("no_engine", func(t *testing.T) {
		cfg := config.Default()
		cfg.DockerHost = "unix://" + filepath.Join(t.TempDir(), "none.sock")
		if d := readDocker(t.Context(), cfg); !strings.Contains(d.Err, "cannot be reached") {
			t.Errorf("%+v", d)
		}
	})
}

// TestExampleHasEveryKind binds the probe to what policies are made of.
func TestExampleHasEveryKind(t *testing.T) {
	wish := exampleWish()
	kinds := map[string]bool{}
	for _, f := range wish.Rules.Families() {
		for _, s := range f.Sets {
			kinds[fmt.Sprint(s.Kind)] = true
		}
	}
	if len(kinds) < 3 || len(wish.Containers) != 4 {
		t.Errorf("kinds of sets %v, containers %v", kinds, wish.Containers)
	}
	if !slices.Contains(iptables.SetTypes(), "hash:net,port") {
		t.Error("no set for published ports is tried")
	}
}
