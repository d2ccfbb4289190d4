package docker

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

const (
	optionBridge = "com.docker.network.bridge.name"
	// optionMode with 4 or 6 after it is the option that says how others reach the containers.
	// Docker 27 and newer have it.
	optionMode = "com.docker.network.bridge.gateway_mode_ipv"

	sharedMode = "container:"

	// maxName bounds what is kept of a name: Docker takes any length, netguard's
	// patterns for names are shorter.
	maxName = 1 << 10
	// maxValue bounds what is kept of a label's value. It is more than a policy
	// can compare with, and more than any of netguard's labels may have.
	maxValue = 64 << 10
)

func newContainer(s container.Summary) *Container {
	c := &Container{
		ID:          s.ID,
		Labels:      s.Labels,
		State:       string(s.State),
		Created:     s.Created,
		NetworkMode: s.HostConfig.NetworkMode,
	}
	clipValues(c.Labels)
	c.Image, c.image = clip(s.Image), imageOf(s)
	for _, n := range s.Names {
		// Links add names with a second slash ("/web/db").
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			c.Name = clip(n)
			break
		}
	}
	// The engine writes "default" if nobody chose a mode.
	if c.NetworkMode == "default" || c.NetworkMode == "" {
		c.NetworkMode = network.NetworkBridge
	}
	for _, p := range s.Ports {
		if p.PublicPort == 0 {
			continue // exposed, not published
		}
		ip, _ := netip.ParseAddr(p.IP)
		c.Ports = append(c.Ports, Published{ip.WithZone(""), p.PublicPort, p.PrivatePort, p.Type})
	}
	slices.SortFunc(c.Ports, func(a, b Published) int {
		return cmp.Or(cmp.Compare(a.ContainerPort, b.ContainerPort), strings.Compare(a.Proto, b.Proto),
			a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
	})
	c.Ports = slices.Compact(c.Ports)
	if s.NetworkSettings != nil {
		for name := range s.NetworkSettings.Networks {
			c.Networks = append(c.Networks, clip(name))
		}
		slices.Sort(c.Networks)
		c.asked = localsOf(s)
	}
	return c
}

func clip(name string) string {
	if len(name) > maxName {
		return strings.Clone(name[:maxName])
	}
	return name
}

func newNetwork(i network.Inspect) Network {
	n := Network{
		ID:     i.ID,
		Name:   clip(i.Name),
		Driver: i.Driver,
		Scope:  i.Scope,
		IPv6:   i.EnableIPv6,
	}
	if n.Driver == network.NetworkBridge {
		n.Bridge = bridgeOf(i)
		for k, family := range []string{"4", "6"} {
			mode := i.Options[optionMode+family]
			n.Routed[k] = mode == "routed" || mode == "nat-unprotected"
		}
	}
	for id, r := range i.Containers {
		if a := newAttachment(n.Name, id, r); a != nil {
			n.Endpoints = append(n.Endpoints, a)
		}
	}
	n.Endpoints = sorted(n.Endpoints)
	for _, c := range i.IPAM.Config {
		if a := parseAddr(c.Gateway); a.IsValid() {
			n.Gateways = append(n.Gateways, a)
		}
		if p, err := netip.ParsePrefix(c.Subnet); err == nil {
			n.Subnets = append(n.Subnets, p.Masked())
		}
		for _, reserved := range c.AuxAddress {
			if a := parseAddr(reserved); a.IsValid() {
				n.Reserved = append(n.Reserved, a)
			}
		}
	}
	slices.SortFunc(n.Reserved, netip.Addr.Compare) // they come from a map, in any order
	return n
}

func bridgeOf(i network.Inspect) string {
	switch {
	case i.Options[optionBridge] != "":
		return i.Options[optionBridge]
	case i.Name == network.NetworkBridge: // no other may have this name
		return "docker0"
	case len(i.ID) < 12:
		return ""
	}
	return "br-" + i.ID[:12]
}

// newAttachment gives the attachment that a network lists under a key. It is nil for an
// endpoint that is in no namespace yet.
func newAttachment(network, key string, r network.EndpointResource) *Attachment {
	if strings.HasPrefix(key, unjoined) {
		return nil
	}
	a := &Attachment{ID: key, Kind: kindOf(network, key, r), IPv4: parseAddr(r.IPv4Address), IPv6: parseAddr(r.IPv6Address)}
	if m, err := net.ParseMAC(r.MacAddress); err == nil {
		a.MAC = m
	}
	if a.Kind != KindContainer {
		a.ID = clip(key)
	}
	return a
}

// sorted sorts attachments by ID, each once.
func sorted(all []*Attachment) []*Attachment {
	slices.SortFunc(all, func(a, b *Attachment) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(all, func(a, b *Attachment) bool { return a.ID == b.ID })
}

// parseAddr takes an address with or without a prefix length: Docker writes
// both. It is the zero Addr for anything else.
func parseAddr(s string) netip.Addr {
	host, _, _ := strings.Cut(s, "/")
	a, _ := netip.ParseAddr(host)
	return a
}
