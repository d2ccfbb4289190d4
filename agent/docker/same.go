package docker

import (
	"maps"
	"slices"

	"netguard/internal/changed"
)

// Same tells whether two containers are the same in all that is known of them. It is
// quick where one was copied from the other.
func (c *Container) Same(o *Container) bool {
	return c == o || c.State == o.State && c.SameDeclared(o)
}

// SameDeclared tells whether two containers are the same but for their state.
func (c *Container) SameDeclared(o *Container) bool {
	return c == o || c.ID == o.ID && c.Name == o.Name && c.Image == o.Image && c.Unproven == o.Unproven && c.Unread == o.Unread &&
		c.NetworkMode == o.NetworkMode && c.SandboxOf == o.SandboxOf && c.Created == o.Created && c.asked == o.asked &&
		c.image.imageKey == o.image.imageKey && changed.Same(c.Labels, o.Labels) && changed.Same(c.Inherited, o.Inherited) &&
		slices.Equal(c.Ports, o.Ports) && slices.Equal(c.Networks, o.Networks) &&
		maps.EqualFunc(c.LocalAddrs, o.LocalAddrs, slices.Equal)
}

// Same tells whether two networks are the same in all that is known of them, but for who
// is attached.
func (n *Network) Same(o *Network) bool {
	return n.ID == o.ID && n.Name == o.Name && n.Driver == o.Driver && n.Scope == o.Scope && n.Bridge == o.Bridge &&
		n.IPv6 == o.IPv6 && n.Routed == o.Routed && slices.Equal(n.Gateways, o.Gateways) && slices.Equal(n.Subnets, o.Subnets) &&
		slices.Equal(n.Reserved, o.Reserved)
}

// SameEndpoints tells whether the same are attached to two networks.
func (n *Network) SameEndpoints(o *Network) bool {
	return slices.EqualFunc(n.Endpoints, o.Endpoints, (*Attachment).Same)
}

// Same tells whether two attachments are the same.
func (a *Attachment) Same(o *Attachment) bool {
	return a == o || a.ID == o.ID && a.IPv4 == o.IPv4 && a.IPv6 == o.IPv6 && a.Kind == o.Kind && slices.Equal(a.MAC, o.MAC)
}
