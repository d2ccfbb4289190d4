package harness

import (
	"net/netip"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"
)

// ContainerOption changes how a container is made.
type ContainerOption func(*wish)

// wish describes a container that is to be made.
type wish struct {
	config   container.Config
	host     container.HostConfig
	networks []attachment
	mac      string
	err      error
}

// attachment is one network that a container is on.
type attachment struct {
	network string
	config  network.EndpointSettings
}

// On puts the container on a network, with these addresses if any. It may be
// given several times. The container is on all of these networks before it starts.
func On(name string, addresses ...string) ContainerOption {
	return func(w *wish) { w.networks = append(w.networks, attach(name, addresses)) }
}

func attach(name string, addresses []string) attachment {
	a := attachment{network: name}
	for _, address := range addresses {
		if a.config.IPAMConfig == nil {
			a.config.IPAMConfig = &network.EndpointIPAMConfig{}
		}
		if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() {
			a.config.IPAMConfig.IPv6Address = address
		} else {
			a.config.IPAMConfig.IPv4Address = address
		}
	}
	return a
}

// LinkLocal gives the container these link-local addresses on the network that was named
// last, as docker run --link-local-ip does.
func LinkLocal(addresses ...string) ContainerOption {
	return func(w *wish) {
		a := &w.networks[len(w.networks)-1].config
		if a.IPAMConfig == nil {
			a.IPAMConfig = &network.EndpointIPAMConfig{}
		}
		a.IPAMConfig.LinkLocalIPs = addresses
	}
}

// WithMAC gives the container this MAC address on its first network.
func WithMAC(mac string) ContainerOption {
	return func(w *wish) { w.mac = mac }
}

// Sharing puts the container into the network namespace of another.
func Sharing(c *Container) ContainerOption {
	return func(w *wish) { w.host.NetworkMode = container.NetworkMode("container:" + c.ID) }
}

// OnHostNetwork puts the container into the network namespace of the engine's host.
func OnHostNetwork() ContainerOption {
	return func(w *wish) { w.host.NetworkMode = "host" }
}

// From chooses the image. The default is [Probe].
func From(image string) ContainerOption {
	return func(w *wish) { w.config.Image = image }
}

// Doing gives the container's command: a verb of /probe and its arguments.
// Without it the container does nothing until it is stopped.
func Doing(verb string, args ...string) ContainerOption {
	return func(w *wish) { w.config.Cmd = append([]string{verb}, args...) }
}

// Running replaces the entry point: it runs a program of the image.
func Running(program string, args ...string) ContainerOption {
	return func(w *wish) { w.config.Entrypoint, w.config.Cmd = []string{program}, args }
}

// Label sets a label.
func Label(key, value string) ContainerOption {
	return func(w *wish) { w.config.Labels[key] = value }
}

// Labels sets labels.
func Labels(labels map[string]string) ContainerOption {
	return func(w *wish) {
		for key, value := range labels {
			w.config.Labels[key] = value
		}
	}
}

// Service sets the labels that Docker Compose would set: project and service.
func Service(project, service string) ContainerOption {
	return Labels(map[string]string{
		"com.docker.compose.project": project,
		"com.docker.compose.service": service,
	})
}

// Cap adds capabilities, such as NET_ADMIN.
func Cap(names ...string) ContainerOption {
	return func(w *wish) { w.host.CapAdd = append(w.host.CapAdd, names...) }
}

// Privileged gives the container all rights. Before Docker 23 that fails on a machine
// that lacks some capabilities. There the container gets those that the machine has.
func Privileged() ContainerOption {
	return func(w *wish) {
		major, err := dockerdMajor()
		if w.err = err; err != nil {
			return
		}
		missing, err := missingCapabilities()
		if w.err = err; err != nil {
			return
		}
		if major >= 23 || len(missing) == 0 {
			w.host.Privileged = true
			return
		}
		w.host.CapAdd, w.host.CapDrop = []string{"ALL"}, missing
		w.host.SecurityOpt = []string{"seccomp=unconfined", "apparmor=unconfined"}
	}
}

// Restarting sets the restart policy: always, unless-stopped or on-failure.
func Restarting(policy string) ContainerOption {
	return func(w *wish) {
		w.host.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyMode(policy)}
	}
}

// Publish publishes a port, as docker run --publish does: "8080:80/tcp".
func Publish(spec string) ContainerOption {
	return func(w *wish) {
		ports, bindings, err := nat.ParsePortSpecs([]string{spec})
		if err != nil {
			w.err = err
			return
		}
		for port := range ports {
			w.config.ExposedPorts[port] = struct{}{}
		}
		for port, b := range bindings {
			w.host.PortBindings[port] = append(w.host.PortBindings[port], b...)
		}
	}
}

// Tuned changes settings that have no option of their own.
func Tuned(f func(*container.Config, *container.HostConfig)) ContainerOption {
	return func(w *wish) { f(&w.config, &w.host) }
}
