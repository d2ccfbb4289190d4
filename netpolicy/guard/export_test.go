package guard

import (
	"net/netip"
	"slices"
	"testing"
)

// Host is a host with real ports, for tests of the package from outside.
type Host struct{ *host }

// NewHost makes a host with n containers.
func NewHost(t *testing.T, n int) Host { return Host{newHost(t, n)} }

// Driver opens a driver.
func (h Host) Driver() *Driver { return h.driver() }

// Port gives the ifindex of a container's port, Bridge that of the bridge.
func (h Host) Port(i int) int { return h.boxes[i].port }

func (h Host) Bridge() int { return h.bridge }

// Wish wants every container guarded and admitted.
func (h Host) Wish() Wish { return h.wish() }

// Run runs a command on the host, in which NAME is a container's veth.
func (h Host) Run(name string, args ...string) { run(h.t, name, args...) }

// AddBridge adds another bridge and gives its ifindex.
func (h Host) AddBridge(name string) int {
	return h.addBridge(name, MAC{2, 0x42, 0, 0, 0, 9}, netip.MustParseAddr("172.31.0.1"))
}

// Sends tells whether what a container sends arrives at the last one. The one before that
// is admitted, and its frame follows.
func (h Host) Sends(i int) bool {
	h.t.Helper()
	witness, to := h.boxes[len(h.boxes)-2], h.boxes[len(h.boxes)-1]
	frame := func(b *box) []byte {
		n := number.Add(1)
		return ether(broadcast, b.mac, 0x806, arpPacket(1, b.mac, b.ip4, MAC{}, netip4(192, 0, byte(n>>8), byte(n))))
	}
	mark, last := frame(h.boxes[i]), frame(witness)
	for receive(to.socket) != nil {
	}
	h.boxes[i].send(mark)
	witness.send(last)
	return got(h.t, to.socket, slices.Clone(mark), last)
}
