package harness

import (
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
)

// NetworkOption changes how a network is made.
type NetworkOption func(*network.CreateOptions)

// Subnet gives the network a subnet; one of each family may be given. An IPv6
// subnet turns IPv6 on.
func Subnet(cidr string) NetworkOption {
	return func(o *network.CreateOptions) {
		if o.IPAM == nil {
			o.IPAM = &network.IPAM{}
		}
		o.IPAM.Config = append(o.IPAM.Config, network.IPAMConfig{Subnet: cidr})
		if strings.Contains(cidr, ":") {
			on := true
			o.EnableIPv6 = &on
		}
	}
}

// BridgeName names the network's bridge.
func BridgeName(name string) NetworkOption {
	return DriverOption("com.docker.network.bridge.name", name)
}

// NoICC refuses traffic between the network's containers.
func NoICC() NetworkOption {
	return DriverOption("com.docker.network.bridge.enable_icc", "false")
}

// Internal makes a network without a route to the outside.
func Internal() NetworkOption {
	return func(o *network.CreateOptions) { o.Internal = true }
}

// Driver chooses another driver than bridge.
func Driver(name string) NetworkOption {
	return func(o *network.CreateOptions) { o.Driver = name }
}

// DriverOption sets an option of the driver.
func DriverOption(key, value string) NetworkOption {
	return func(o *network.CreateOptions) { o.Options[key] = value }
}

// NetworkLabel sets a label on the network.
func NetworkLabel(key, value string) NetworkOption {
	return func(o *network.CreateOptions) { o.Labels[key] = value }
}

// Network is a network of an engine.
type Network struct {
	Name string
	ID   string
	// Bridge is the name of the network's bridge on the engine's host.
	Bridge string
	// Gateway4 and Gateway6 are the bridge's addresses, where it has them.
	Gateway4, Gateway6 netip.Addr

	e *Engine
}

// Network makes a network. Without [Subnet] the engine chooses one.
func (e *Engine) Network(name string, options ...NetworkOption) *Network {
	e.tb.Helper()
	o := network.CreateOptions{Driver: "bridge", Options: map[string]string{}, Labels: map[string]string{}}
	for _, option := range options {
		option(&o)
	}
	ctx, cancel := e.ctx()
	defer cancel()
	made, err := e.Client.NetworkCreate(ctx, name, o)
	e.must(err, "create network %s", name)
	e.must(e.Do(e.set.bridgeFilter), "create network %s", name)
	if e.scoped {
		e.tb.Cleanup(func() {
			ctx, cancel := e.ctx()
			defer cancel()
			if err := e.Client.NetworkRemove(ctx, made.ID); err != nil && !errdefs.IsNotFound(err) {
				e.tb.Errorf("remove network %s: %v", name, err)
			}
		})
	}
	return e.ExistingNetwork(made.ID)
}

// DefaultBridge returns the network of containers that name no network.
func (e *Engine) DefaultBridge() *Network {
	e.tb.Helper()
	return e.ExistingNetwork("bridge")
}

// ExistingNetwork finds a network by name or id.
func (e *Engine) ExistingNetwork(name string) *Network {
	e.tb.Helper()
	ctx, cancel := e.ctx()
	defer cancel()
	i, err := e.Client.NetworkInspect(ctx, name, network.InspectOptions{})
	e.must(err, "inspect network %s", name)
	n := &Network{Name: i.Name, ID: i.ID, e: e}
	if i.Driver == "bridge" {
		n.Bridge = i.Options["com.docker.network.bridge.name"]
		if n.Bridge == "" {
			n.Bridge = "br-" + i.ID[:12]
		}
	}
	for _, c := range i.IPAM.Config {
		if ip, err := netip.ParseAddr(c.Gateway); err == nil && ip.Is4() {
			n.Gateway4 = ip
		} else if err == nil {
			n.Gateway6 = ip
		}
	}
	return n
}

// Remove removes the network.
func (n *Network) Remove() {
	n.e.tb.Helper()
	ctx, cancel := n.e.ctx()
	defer cancel()
	n.e.must(n.e.Client.NetworkRemove(ctx, n.ID), "remove network %s", n.Name)
}
