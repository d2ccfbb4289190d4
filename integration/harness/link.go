package harness

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
)

// Interface returns the name that a network's interface has in the container,
// such as eth0.
func (c *Container) Interface(networkName string) string {
	c.e.tb.Helper()
	return c.link(networkName).Name
}

// Veth returns the name of the interface on the engine's host that is the other
// end of the container's on a network.
func (c *Container) Veth(networkName string) string {
	c.e.tb.Helper()
	index := c.link(networkName).ParentIndex
	var name string
	c.e.must(c.e.Do(func() error {
		link, err := netlink.LinkByIndex(index)
		if err == nil {
			name = link.Attrs().Name
		}
		return err
	}), "find host interface of %s on %s", c.Name, networkName)
	return name
}

// link finds the container's interface by the MAC address that the engine gave it.
func (c *Container) link(networkName string) *netlink.LinkAttrs {
	c.e.tb.Helper()
	mac := c.MAC(networkName)
	var found *netlink.LinkAttrs
	c.e.must(c.Inside().Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			if strings.EqualFold(link.Attrs().HardwareAddr.String(), mac) {
				found = link.Attrs()
				return nil
			}
		}
		return fmt.Errorf("none has the MAC address %s", mac)
	}), "find interface of %s on %s", c.Name, networkName)
	return found
}
