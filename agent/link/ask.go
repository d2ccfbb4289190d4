package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotFound says that there is no such bridge port (any more).
	ErrNotFound = errors.New("no such bridge port")

	// errOther says that the peer's index now names another device.
	errOther = errors.New("not the peer of the port")
)

func openSocket() (*nl.NetlinkSocket, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	tv := unix.NsecToTimeval(requestTimeout.Nanoseconds())
	if err := errors.Join(s.SetSendTimeout(&tv), s.SetReceiveTimeout(&tv)); err != nil {
		s.Close()
		return nil, fmt.Errorf("set netlink timeout: %w", err)
	}
	return s, nil
}

// peer asks for the other end of a veth by its index in the namespace nsid
// (RTM_GETLINK with IFLA_TARGET_NETNSID, Linux 4.19), without going there. It
// takes 30 to 130 us.
func (t *Table) peer(port, index, nsid int) (mac net.HardwareAddr, up bool, err error) {
	answers, err := t.getLink(index, nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(nsid))))
	if err != nil {
		return nil, false, fmt.Errorf("ask for peer %d in namespace %d: %w", index, nsid, err)
	}
	for _, a := range answers {
		link, err := netlink.LinkDeserialize(nil, a)
		if err != nil {
			return nil, false, fmt.Errorf("read peer %d in namespace %d: %w", index, nsid, err)
		}
		// Both ends name each other. A device that took over the
		// index after the peer moved on does not.
		if at := link.Attrs(); link.Type() == "veth" && at.ParentIndex == port {
			return slices.Clone(at.HardwareAddr), at.Flags&net.FlagUp != 0, nil
		}
	}
	return nil, false, fmt.Errorf("ask for peer %d in namespace %d: %w", index, nsid, errOther)
}

// getLink asks for a link.
func (t *Table) getLink(index int, attrs ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: t.raw}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
}

// Resolve asks the kernel for one port and its peer now, instead of waiting for
// a message, and returns what is known afterwards. The error is ErrNotFound when
// the link is gone or is no port.
func (t *Table) Resolve(index int) (Port, error) {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	if err := t.reread(index); err != nil {
		return Port{}, fmt.Errorf("resolve link %d: %w", index, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.veths[index]; ok {
		if p, ok := t.port(v); ok {
			return p, nil
		}
	}
	return Port{}, fmt.Errorf("resolve link %d: %w", index, ErrNotFound)
}

// Addresses returns the addresses of the namespace's own devices.
func (t *Table) Addresses() (map[netip.Addr]bool, error) {
	list, err := t.ask.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			out[ip.Unmap()] = true
		}
	}
	return out, nil
}

// NSIDOf returns the id that this namespace gave to the network namespace whose
// nsfs file is at path (a container's sandbox such as
// /var/run/docker/netns/1a2b…, or /proc/PID/ns/net), or -1 if it gave it none,
// which means that no link leads there. The namespace is not entered.
func (t *Table) NSIDOf(path string) (int, error) {
	// O_NONBLOCK: a path that is a FIFO must not block.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open namespace", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, &os.PathError{Op: "stat namespace", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return 0, &os.PathError{Op: "open namespace", Path: path, Err: errors.New("not a namespace (its mount is gone)")}
	}
	id, err := t.ask.GetNetNsIdByFd(fd)
	if err != nil {
		return 0, fmt.Errorf("get id of namespace %s: %w", path, err)
	}
	return id, nil
}
