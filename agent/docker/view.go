// Package docker observes a Docker engine: which containers there are, with
// their labels, and which networks, with who is attached to them. It is the only
// importer of github.com/docker/docker/client.
//
// It promises that an event is never more than a hint to read again: what a View holds was read
// from the API. A View that was handed out does not change. A reading does not depend on
// inspecting a container that may be starting: the engine holds the container's lock while it
// starts, and answers no inspection meanwhile. The networks and the list of containers come at
// once, before the container's first instruction.
package docker

import (
	"net"
	"net/netip"
	"strings"

	"netguard/internal/changed"
)

// View is what an engine has, as it was read last.
type View struct {
	Version  string // of the engine, "" until it was read
	Firewall string // the engine's firewall backend: "iptables" or "nftables"
	// DataPort is the UDP port of Swarm's VXLAN, 0 if the host is in no Swarm as far as
	// was read.
	DataPort   uint16
	Containers []*Container       // sorted by ID
	Networks   map[string]Network // by ID

	sharing []*Container // the containers that were created in the namespace of another one
}

// Container is a container that exists, running or not.
type Container struct {
	ID, Name string
	Labels   map[string]string
	// Image is the reference that the container was created with. It is the image's ID if the
	// reference named another image already when the agent first saw the container.
	Image string
	// Inherited names the labels that have the same value in the image. Nobody can tell whether
	// the container's creator wanted them.
	Inherited map[string]bool
	// Unproven says why Inherited is not known; "" if it is.
	Unproven string
	// Unread says why Labels is empty although the container may have labels, with the remedy;
	// "" if its labels were read.
	Unread string
	State  string // created, running, paused, restarting, removing, exited, dead
	// NetworkMode is how it was created: the name or ID of a network, host,
	// none, or container:X.
	NetworkMode string
	// SandboxOf is the ID of the container whose network namespace it shares,
	// "" for one of its own.
	SandboxOf string
	Ports     []Published
	Created   int64 // seconds since 1970
	// Networks are the names of the networks in its configuration when it was listed, sorted.
	// It need not have an endpoint there yet.
	Networks []string

	// LocalAddrs are the link-local addresses that its creator gave it, as far as is known. The
	// key is the network's name or ID, as the creator wrote it: see LinkLocals.
	LocalAddrs map[string][]netip.Addr

	image imageRef
	// asked names the endpoints on which the creator asked for addresses.
	asked string
}

// Counts tells whether a label surely comes from the container's creator, and not from its
// image.
func (c Container) Counts(label string) bool { return c.Unproven == "" && !c.Inherited[label] }

// Published is a port of a container that is reachable through the host.
type Published struct {
	HostIP        netip.Addr // 0.0.0.0 or :: for every address
	HostPort      uint16
	ContainerPort uint16
	Proto         string // tcp, udp or sctp
}

// Network is a network of the engine.
type Network struct {
	ID, Name string
	Driver   string // bridge, host, null, macvlan, ipvlan, overlay, or a plugin's
	Scope    string // local or swarm
	Bridge   string // name of the device, for the driver bridge
	IPv6     bool
	Gateways []netip.Addr
	Subnets  []netip.Prefix
	// Routed tells, for IPv4 and then IPv6, whether others reach its containers at their own
	// addresses, and not only at published ports.
	Routed    [2]bool
	Reserved  []netip.Addr  // addresses that the engine gives to no container (--aux-address)
	Endpoints []*Attachment // sorted by ID
}

// Attachment is a container's endpoint on a network, as the engine declares it.
type Attachment struct {
	// ID is the container's ID. If the attachment belongs to no container, ID is the name under
	// which the engine lists it, and Kind says what it is.
	ID         string
	MAC        net.HardwareAddr // nil if the network gives none
	IPv4, IPv6 netip.Addr       // invalid where there is none
	Kind       Kind
}

// InSwarm tells whether the host is a node of a Swarm: only then it has overlays.
func (v View) InSwarm() bool {
	for _, n := range v.Networks {
		if n.Driver == "overlay" {
			return true
		}
	}
	return false
}

// attached lists the networks on which a container has an endpoint.
func (v View) attached(container string) []string {
	var ids []string
	for id, n := range v.Networks {
		if n.Attachment(container) != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Container gives the container with an ID; nil if there is none.
func (v View) Container(id string) *Container { return changed.Find(v.Containers, id) }

// Attachment gives the endpoint of a container on a network; nil if there is none.
func (n Network) Attachment(container string) *Attachment {
	return changed.Find(n.Endpoints, container)
}

// Key is the ID.
func (c *Container) Key() string { return c.ID }

// shares tells whether a container was created in the namespace of another.
func (c *Container) shares() bool { return strings.HasPrefix(c.NetworkMode, sharedMode) }

// Key is the ID.
func (a *Attachment) Key() string { return a.ID }

// Bridges are the names of the devices of all networks that have one.
func (v View) Bridges() map[string]bool {
	out := make(map[string]bool, len(v.Networks))
	for _, n := range v.Networks {
		if n.Bridge != "" {
			out[n.Bridge] = true
		}
	}
	return out
}

// Lives tells whether the container runs, or may run at any moment without a request: it was
// just created, or it restarts.
func (c *Container) Lives() bool {
	return c.Running() || c != nil && (c.State == "created" || c.State == "restarting")
}

// Running tells whether the container's processes exist.
func (c *Container) Running() bool { return c != nil && (c.State == "running" || c.State == "paused") }
