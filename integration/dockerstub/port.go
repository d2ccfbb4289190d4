package dockerstub

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// port is a container's link: a veth on the bridge, its other end in a namespace.
type port struct {
	address netip.Addr
	inside  netns.NsHandle
	veth    string
	index   int
}

// add makes the link, and puts the host's end on the bridge.
func (p *port) add(e *Engine, n *Network) error {
	var err error
	if p.inside == 0 {
		if p.inside, err = newNamespace(); err != nil {
			return err
		}
	}
	suffix := make([]byte, 3)
	rand.Read(suffix)
	p.veth = "veth" + hex.EncodeToString(suffix)
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = p.veth, n.index
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerHardwareAddr: macOf(p.address), PeerNamespace: netlink.NsFd(p.inside)}
	if err := e.kernel.LinkAdd(veth); err != nil {
		return fmt.Errorf("add %s: %w", p.veth, err)
	}
	link, err := e.kernel.LinkByName(p.veth)
	if err != nil {
		return err
	}
	p.index = link.Attrs().Index
	return e.kernel.LinkSetUp(link)
}

// open gives the container's end its addresses, and brings it up.
func (p *port) open(_ *Engine, n *Network) error {
	kernel, err := netlink.NewHandleAt(p.inside)
	if err != nil {
		return err
	}
	defer kernel.Close()
	link, err := kernel.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := kernel.AddrAdd(link, &netlink.Addr{IPNet: netOf(p.address, n.subnet)}); err != nil {
		return err
	}
	if err := kernel.LinkSetUp(link); err != nil {
		return err
	}
	index := link.Attrs().Index
	// A question for the gateway's MAC that is refused is asked again after a second.
	return errors.Join(
		kernel.RouteAdd(&netlink.Route{LinkIndex: index, Gw: n.Gateway.AsSlice()}),
		kernel.NeighSet(&netlink.Neigh{LinkIndex: index, IP: n.Gateway.AsSlice(), HardwareAddr: n.mac, State: netlink.NUD_PERMANENT}),
	)
}

func (p *port) remove(e *Engine) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Index = p.index
	return e.kernel.LinkDel(&netlink.Veth{LinkAttrs: attributes})
}

// close releases the namespace.
func (c *Container) close() {
	if c.port.inside != 0 {
		_ = c.port.inside.Close()
	}
}

// Veth is the name of the host's end.
func (c *Container) Veth() string { return c.port.veth }

// Address is the container's.
func (c *Container) Address() netip.Addr { return c.port.address }

// DialUDP opens a socket in the container's namespace. The container has been started.
func (c *Container) DialUDP(to netip.AddrPort) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := onThread(func() error {
		if err := netns.Set(c.port.inside); err != nil {
			return err
		}
		var err error
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	return conn, err
}

// sandboxKey is the path of the namespace. Nothing of it is left when this process has
// ended.
func (p *port) sandboxKey() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.inside)
}

// newNamespace makes a namespace as Docker makes one where IPv6 is off.
func newNamespace() (netns.NsHandle, error) {
	var made netns.NsHandle
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
		for _, which := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("switch IPv6 off: %w", err)
			}
		}
		var err error
		made, err = netns.Get()
		return err
	})
	return made, err
}

// onThread runs f on a thread that is thrown away afterwards.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		done <- f()
	}()
	return <-done
}
