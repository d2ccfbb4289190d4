package harness

import (
	"bytes"
	"strings"
	"sync"
)

// output keeps what a process prints, and tells when there is more.
type output struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	change chan struct{}
	closed bool
}

// maxOutput bounds what is kept of a process that never stops printing.
const maxOutput = 16 << 20

func newOutput() *output { return &output{change: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len()+len(b) > maxOutput {
		o.buf.Next(maxOutput / 2)
	}
	o.buf.Write(b)
	close(o.change)
	o.change = make(chan struct{})
	return len(b), nil
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

func (o *output) more() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.change
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// find returns the first whole line that has the text; the last line counts
// when the process has ended.
func (o *output) find(text string) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(o.buf.String()) {
		if !strings.HasSuffix(line, "\n") && !o.closed {
			break
		}
		if line = strings.TrimSuffix(line, "\n"); strings.Contains(line, text) {
			return line, true
		}
	}
	return "", false
}
