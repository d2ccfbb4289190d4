// Package dockertest changes what Docker lists, for tests. A view that was handed out stays as it
// is.
package dockertest

import (
	"maps"

	"netguard/agent/docker"
	"netguard/internal/changed"
)

// Put has a view list a container.
func Put(v *docker.View, c docker.Container) {
	v.Containers = changed.With(v.Containers, map[string]*docker.Container{c.ID: &c})
}

// Drop has a view list a container no more.
func Drop(v *docker.View, id string) {
	v.Containers = changed.With(v.Containers, map[string]*docker.Container{id: nil})
}

// Attach has a view list an endpoint of a network.
func Attach(v *docker.View, network string, a docker.Attachment) { attach(v, network, a.ID, &a) }

// Detach has a view list an endpoint no more.
func Detach(v *docker.View, network, id string) { attach(v, network, id, nil) }

func attach(v *docker.View, network, id string, a *docker.Attachment) {
	n := v.Networks[network]
	n.Endpoints = changed.With(n.Endpoints, map[string]*docker.Attachment{id: a})
	v.Networks = maps.Clone(v.Networks)
	v.Networks[network] = n
}
