package harness

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"netguard/integration/remains"
)

// session is what all engines of this process share: a directory with the
// programs that were built, and the reaper that waits for the process's end.
type session struct {
	name   string
	dir    string
	owner  remains.Owner
	record remains.Record
	reaper int            // its process id
	lease  io.WriteCloser // never written to: it closes when the process ends
	serial atomic.Int64

	mu     sync.Mutex
	builds map[string]func() (string, error)
}

// theSession is made at the first use. A reaper that failed to start cannot be
// replaced, so the error stays as well.
var theSession = sync.OnceValues(openSession)

func openSession() (*session, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("start harness: not root: network namespaces and dockerd need it")
	}
	id := make([]byte, 4)
	rand.Read(id)
	s := &session{name: "ngt-" + hex.EncodeToString(id), builds: map[string]func() (string, error){}}
	s.dir = filepath.Join(os.TempDir(), s.name)
	var err error
	if s.owner, err = remains.Self(); err != nil {
		return nil, err
	}
	s.record = remains.Record{Name: s.name, Owner: s.owner, Dir: s.dir}
	if err := s.record.Write(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("create session: %w", err)
	}
	return s, s.startReaper()
}

func (s *session) startReaper() error {
	binary, err := s.build("netguard/integration/reaper")
	if err != nil {
		return err
	}
	cmd := exec.Command(binary, strconv.Itoa(os.Getpid()))
	// In a session of its own an interrupt at the keyboard does not reach it.
	// Without our output, `go test` does not wait for it.
	cmd.SysProcAttr = ownSession()
	if s.lease, err = cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start reaper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start reaper: %w", err)
	}
	s.reaper = cmd.Process.Pid
	return nil
}

// build compiles a command of this module, once for each process, and returns
// the binary's path. It is static, so that it runs in an empty image. Build tags
// are part of the binary's name.
func (s *session) build(pkg string, tags ...string) (string, error) {
	s.mu.Lock()
	name := strings.Join(append([]string{filepath.Base(pkg)}, tags...), "-")
	once := s.builds[name]
	if once == nil {
		once = sync.OnceValues(func() (string, error) {
			out := filepath.Join(s.dir, name)
			cmd := exec.Command("go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", out, pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", s.record.Mark())
			if log, err := cmd.CombinedOutput(); err != nil {
				return "", fmt.Errorf("build %s: %w\n%s", pkg, err, log)
			}
			return out, nil
		})
		s.builds[name] = once
	}
	s.mu.Unlock()
	return once()
}

// engineName returns a name that no other engine on this machine has.
func (s *session) engineName() string {
	return fmt.Sprintf("%s-%d", s.name, s.serial.Add(1))
}
