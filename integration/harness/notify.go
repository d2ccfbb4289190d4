package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// notify is the socket on which a service says that it is ready, as systemd's.
// dockerd and netguard both do.
type notify struct {
	path  string
	conn  *net.UnixConn
	ready chan struct{} // closed at the first READY=1
}

func listenNotify(path string) (*notify, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for readiness: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for readiness: %w", err)
	}
	n := &notify{path: path, conn: conn, ready: make(chan struct{})}
	go n.read()
	return n, nil
}

func (n *notify) env() string { return "NOTIFY_SOCKET=" + n.path }

// read reads until the socket is closed: a service whose messages nobody takes
// would block in its next one.
func (n *notify) read() {
	buf := make([]byte, 4096)
	told := false
	for {
		size, err := n.conn.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(buf[:size])) {
			if strings.TrimSpace(line) == "READY=1" && !told {
				told = true
				close(n.ready)
			}
		}
	}
}

func (n *notify) close() {
	n.conn.Close()
	os.Remove(n.path)
}
