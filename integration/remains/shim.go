package remains

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// shimDir holds the sockets of all containerds' shims, under hashed names.
const shimDir = "/run/containerd/s"

// ShimSockets lists the sockets of the engine's shims; a killed shim leaves its socket.
// The bundle's file "address" contains the name. A shim may have made the socket and
// been killed before it wrote this file. So ShimSockets also computes the name as
// containerd does (SocketAddress in its runtime/v2/shim).
func (r Record) ShimSockets() []string {
	var found []string
	add := func(socket string) {
		if _, err := os.Lstat(socket); err == nil && filepath.Dir(socket) == shimDir {
			found = append(found, socket)
		}
	}
	exec := filepath.Join(r.Dir, "exec", "containerd")
	bundles, _ := filepath.Glob(filepath.Join(exec, "daemon", "io.containerd.runtime.v2.task", "*", "*"))
	for _, bundle := range bundles {
		raw, err := os.ReadFile(filepath.Join(bundle, "address"))
		if err == nil {
			add(strings.TrimPrefix(strings.TrimSpace(string(raw)), "unix://"))
			continue
		}
		namespace, id := filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle)
		path := filepath.Join(exec, "containerd.sock", namespace, id)
		add(filepath.Join(shimDir, fmt.Sprintf("%x", sha256.Sum256([]byte(path)))))
	}
	return found
}
