package dockerstub

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// Network is a network of the stub engine.
type Network struct {
	ID, Name, Driver string
	// Bridge is its device, "" if it has none.
	Bridge string
	// Gateway is the bridge's address.
	Gateway netip.Addr

	subnet  netip.Prefix
	mac     net.HardwareAddr // of the bridge
	index   int
	options map[string]string
	created time.Time

	// The engine's mutex guards what follows.
	attached map[string]*Container
	free     []netip.Addr // returned addresses
	next     netip.Addr
}

// Network makes a network with a bridge.
func (e *Engine) Network(name, subnet string) *Network {
	e.tb.Helper()
	return e.addNetwork(name, "", subnet, nil)
}

func (e *Engine) addNetwork(name, bridge, subnet string, options map[string]string) *Network {
	e.tb.Helper()
	n := &Network{
		ID: newID(), Name: name, Driver: "bridge", Bridge: bridge, subnet: netip.MustParsePrefix(subnet), options: options,
		created: time.Now(), attached: map[string]*Container{},
	}
	if bridge == "" {
		n.Bridge = "br-" + n.ID[:12]
	}
	n.Gateway = n.subnet.Masked().Addr().Next()
	n.next, n.mac = n.Gateway, macOf(n.Gateway)
	n.mac[1] = 0x43 // no container has this MAC
	e.must(e.makeBridge(n), "make bridge of %s", name)
	e.must(e.allow(n), "write Docker's rules about %s", name)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.networks[n.ID] = n
	e.tell("network", "create", n.ID, map[string]string{"name": name, "type": "bridge"})
	return n
}

func (e *Engine) makeBridge(n *Network) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.HardwareAddr = n.Bridge, n.mac
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := e.kernel.LinkAdd(bridge); err != nil {
		return err
	}
	link, err := e.kernel.LinkByName(n.Bridge)
	if err != nil {
		return err
	}
	n.index = link.Attrs().Index
	// Said twice, or the bridge takes another with each port.
	if err := e.kernel.LinkSetHardwareAddr(link, n.mac); err != nil {
		return err
	}
	if err := e.kernel.AddrAdd(link, &netlink.Addr{IPNet: netOf(n.Gateway, n.subnet)}); err != nil {
		return err
	}
	return e.kernel.LinkSetUp(link)
}

// take returns an unused address.
func (n *Network) take() netip.Addr {
	if last := len(n.free) - 1; last >= 0 {
		a := n.free[last]
		n.free = n.free[:last]
		return a
	}
	n.next = n.next.Next()
	return n.next
}

func (n *Network) give(a netip.Addr) { n.free = append(n.free, a) }

func netOf(a netip.Addr, p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(p.Bits(), a.BitLen())}
}

// macOf is the MAC that Docker 20.10 makes from an address.
func macOf(a netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x42}, a.AsSlice()...)
}

// firewall writes the rules that Docker 20.10 writes at its start.
func (e *Engine) firewall() error {
	return e.restore(`*filter
:FORWARD DROP
:DOCKER -
:DOCKER-ISOLATION-STAGE-1 -
:DOCKER-ISOLATION-STAGE-2 -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:DOCKER -
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
`)
}

// allow writes the rules that Docker 20.10 writes for a network, below those of its start.
func (e *Engine) allow(n *Network) error {
	return e.restore(strings.NewReplacer("BRIDGE", n.Bridge, "SUBNET", n.subnet.String()).Replace(`*filter
-I DOCKER-ISOLATION-STAGE-1 -i BRIDGE ! -o BRIDGE -j DOCKER-ISOLATION-STAGE-2
-I DOCKER-ISOLATION-STAGE-2 -o BRIDGE -j DROP
-I FORWARD 3 -i BRIDGE -o BRIDGE -j ACCEPT
-I FORWARD 3 -i BRIDGE ! -o BRIDGE -j ACCEPT
-I FORWARD 3 -o BRIDGE -j DOCKER
-I FORWARD 3 -o BRIDGE -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
-I POSTROUTING -s SUBNET ! -o BRIDGE -j MASQUERADE
-I DOCKER -i BRIDGE -j RETURN
COMMIT
`))
}

func (e *Engine) restore(text string) error {
	cmd := e.host.Command(e.tb.Context(), "iptables-restore", "--noflush")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
