package harness

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// SendFrame sends an Ethernet frame from the namespace's interface, count times.
func (n Netns) SendFrame(iface string, frame []byte, count int) {
	n.tb.Helper()
	r := n.Probe("frame", "send", iface, hex.EncodeToString(frame), strconv.Itoa(count))
	if !r.OK() {
		n.tb.Fatalf("%s", r)
	}
}

// FloodFrames sends a frame for a time, each time from a new source MAC. It returns
// how many frames the kernel accepted.
func (n Netns) FloodFrames(iface string, frame []byte, duration time.Duration) int {
	n.tb.Helper()
	var sent struct{ Sent int }
	r := n.Probe("frame", "flood", iface, hex.EncodeToString(frame), duration.String())
	if err := r.Into(&sent); err != nil {
		n.tb.Fatalf("%v", err)
	}
	return sent.Sent
}

// Hearing records the incoming frames of an interface.
type Hearing struct {
	process *Process
}

// Hear records the frames that enter the namespace by an interface, in promiscuous
// mode, and pass the filter: "any", or conditions that must all be true, such as
// "ethertype=0806,src=02:42:0a:07:00:02,contains=c0000201". It returns when it listens.
func (n Netns) Hear(iface, filter string) *Hearing {
	n.tb.Helper()
	p := n.SpawnProbe("frame", "listen", iface, filter, longest.String())
	p.AwaitLine("listening")
	return &Hearing{p}
}

// Await waits until a frame has been heard, and returns the first.
func (h *Hearing) Await() []byte {
	h.process.tb.Helper()
	frames := h.decode(h.process.AwaitLine(`"hex"`))
	return frames[0]
}

// Stop ends the recording and returns all recorded frames. A frame that was sent
// before may still be on its way, unless the test waited for it.
func (h *Hearing) Stop() [][]byte {
	h.process.tb.Helper()
	return h.decode(h.process.Stop().Stdout)
}

func (h *Hearing) decode(text string) [][]byte {
	h.process.tb.Helper()
	var frames [][]byte
	for line := range strings.Lines(text) {
		var heard struct{ Hex string }
		err := json.Unmarshal([]byte(line), &heard)
		if err == nil && heard.Hex == "" {
			continue
		}
		var frame []byte
		if err == nil {
			frame, err = hex.DecodeString(heard.Hex)
		}
		if err != nil {
			h.process.tb.Fatalf("read frames heard: %v: %q", err, line)
		}
		frames = append(frames, frame)
	}
	return frames
}
