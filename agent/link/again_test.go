package link

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestReadsAgain: a link, or its peer, that could not be read at the last message about it is
// read again without another message.
func TestReadsAgain(t *testing.T) {
	for name, spoil := range map[string]func(*host) (mend func()){
		"a_link": func(h *host) func() {
			ask, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			must(t, err)
			closed := *ask // it still has its sockets
			ask.Close()
			ask, h.table.ask = h.table.ask, &closed
			return func() { h.table.ask = ask }
		},
		"a_peer": func(h *host) func() {
			fd := h.table.raw.Socket.GetFd()
			must(t, h.table.raw.Socket.SetReceiveTimeout(&unix.Timeval{Usec: 1000}))
			must(t, attach(fd, []bpf.Instruction{bpf.RetConstant{Val: 0}})) // no answer passes
			return func() { must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			br, c := h.bridge("br-x"), h.container()
			h.watch()
			h.await("the bridge", func() bool { return len(h.table.Bridges()) == 1 })
			h.table.refresh.Lock()
			mend := spoil(h)
			h.table.refresh.Unlock()
			v, _ := c.join("veth1", br, mac(1))
			for l := netlink.Link(v); l.Attrs().OperState != netlink.OperUp; {
				var err error
				l, err = netlink.LinkByIndex(v.Index)
				must(t, err)
			}
			events := []unix.PollFd{{Fd: int32(h.table.events.GetFd()), Events: unix.POLLIN}}
			for n := 1; n > 0; {
				n, _ = unix.Poll(events, 0)
			}
			h.table.refresh.Lock()
			mend()
			h.table.refresh.Unlock()
			h.awaitPort("the port", "veth1", pinnedTo(mac(1)))
		})
	}
}
