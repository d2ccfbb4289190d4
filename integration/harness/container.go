package harness

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"
)

// Container is a container of an engine.
type Container struct {
	ID   string
	Name string

	e *Engine
}

// Run makes a container and starts it.
func (e *Engine) Run(name string, options ...ContainerOption) *Container {
	e.tb.Helper()
	c := e.Create(name, options...)
	c.Start()
	return c
}

// Create makes a container that does not run yet.
func (e *Engine) Create(name string, options ...ContainerOption) *Container {
	e.tb.Helper()
	c, err := e.TryCreate(name, options...)
	e.must(err, "create container %s", name)
	return c
}

// TryCreate is Create for a container that the engine may refuse.
func (e *Engine) TryCreate(name string, options ...ContainerOption) (*Container, error) {
	w := wish{
		config: container.Config{Image: Probe, Labels: map[string]string{}, ExposedPorts: nat.PortSet{}},
		host:   container.HostConfig{PortBindings: nat.PortMap{}},
	}
	for _, option := range options {
		option(&w)
	}
	if w.err != nil {
		return nil, w.err
	}
	if err := e.need(w.config.Image); err != nil {
		return nil, err
	}
	ctx, cancel := e.ctx()
	defer cancel()
	// Engines before API 1.44 take one network at the creation, and the MAC
	// address with the container; later ones have it at the endpoint.
	var rest []attachment
	endpoints := network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	if len(w.networks) > 0 {
		first := w.networks[0]
		rest = w.networks[1:]
		if versions.GreaterThanOrEqualTo(e.Client.ClientVersion(), "1.44") {
			first.config.MacAddress = w.mac
		} else {
			//lint:ignore SA1019 it is right for these engines
			w.config.MacAddress = w.mac
		}
		w.host.NetworkMode = container.NetworkMode(first.network)
		endpoints.EndpointsConfig[first.network] = &first.config
	}
	made, err := e.Client.ContainerCreate(ctx, &w.config, &w.host, &endpoints, nil, name)
	if err != nil {
		return nil, err
	}
	c := &Container{ID: made.ID, Name: name, e: e}
	if e.scoped {
		e.tb.Cleanup(c.discard)
	}
	for _, a := range rest {
		if err := e.Client.NetworkConnect(ctx, a.network, c.ID, &a.config); err != nil {
			return c, fmt.Errorf("connect to %s: %w", a.network, err)
		}
	}
	return c, nil
}

func (c *Container) discard() {
	ctx, cancel := c.e.ctx()
	defer cancel()
	err := c.e.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		c.e.tb.Errorf("remove container %s: %v", c.Name, err)
	}
}

// For returns the same container for a subtest.
func (c *Container) For(tb TB) *Container {
	return &Container{ID: c.ID, Name: c.Name, e: c.e.For(tb)}
}

func (c *Container) do(what string, f func(context.Context) error) {
	c.e.tb.Helper()
	ctx, cancel := c.e.ctx()
	defer cancel()
	c.e.must(f(ctx), "%s container %s", what, c.Name)
}

// Start starts the container. It returns when its program runs.
func (c *Container) Start() {
	c.e.tb.Helper()
	c.do("start", func(ctx context.Context) error { return c.TryStart(ctx) })
}

// TryStart is Start for a container that the engine may refuse to start.
func (c *Container) TryStart(ctx context.Context) error {
	return c.e.Client.ContainerStart(ctx, c.ID, container.StartOptions{})
}

// Stop stops the container.
func (c *Container) Stop() {
	c.e.tb.Helper()
	c.do("stop", func(ctx context.Context) error {
		return c.e.Client.ContainerStop(ctx, c.ID, container.StopOptions{})
	})
}

// Restart stops and starts the container.
func (c *Container) Restart() {
	c.e.tb.Helper()
	c.do("restart", func(ctx context.Context) error {
		return c.e.Client.ContainerRestart(ctx, c.ID, container.StopOptions{})
	})
}

// Kill sends a signal to the container's program, such as SIGKILL.
func (c *Container) Kill(signal string) {
	c.e.tb.Helper()
	c.do("kill", func(ctx context.Context) error { return c.e.Client.ContainerKill(ctx, c.ID, signal) })
}

// Pause freezes the container.
func (c *Container) Pause() {
	c.e.tb.Helper()
	c.do("pause", func(ctx context.Context) error { return c.e.Client.ContainerPause(ctx, c.ID) })
}

// Unpause ends Pause.
func (c *Container) Unpause() {
	c.e.tb.Helper()
	c.do("unpause", func(ctx context.Context) error { return c.e.Client.ContainerUnpause(ctx, c.ID) })
}

// Rename gives the container another name.
func (c *Container) Rename(name string) {
	c.e.tb.Helper()
	c.do("rename", func(ctx context.Context) error { return c.e.Client.ContainerRename(ctx, c.ID, name) })
	c.Name = name
}

// Remove ends the container and removes it.
func (c *Container) Remove() {
	c.e.tb.Helper()
	c.do("remove", func(ctx context.Context) error {
		return c.e.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
	})
}

// Wait waits until the container's program has ended, and returns its exit code.
func (c *Container) Wait() int {
	c.e.tb.Helper()
	ctx, cancel := c.e.ctx()
	defer cancel()
	ended, failed := c.e.Client.ContainerWait(ctx, c.ID, container.WaitConditionNotRunning)
	select {
	case end := <-ended:
		return int(end.StatusCode)
	case err := <-failed:
		c.e.must(err, "wait for container %s", c.Name)
	}
	return -1
}

// Connect puts the container on one more network, with these addresses if any.
func (c *Container) Connect(networkName string, addresses ...string) {
	c.e.tb.Helper()
	a := attach(networkName, addresses)
	c.do("connect", func(ctx context.Context) error {
		return c.e.Client.NetworkConnect(ctx, a.network, c.ID, &a.config)
	})
}

// Disconnect takes the container off a network.
func (c *Container) Disconnect(networkName string) {
	c.e.tb.Helper()
	c.do("disconnect", func(ctx context.Context) error {
		return c.e.Client.NetworkDisconnect(ctx, networkName, c.ID, false)
	})
}

// Inspect returns all that the engine knows of the container.
func (c *Container) Inspect() container.InspectResponse {
	c.e.tb.Helper()
	var i container.InspectResponse
	c.do("inspect", func(ctx context.Context) (err error) {
		i, err = c.e.Client.ContainerInspect(ctx, c.ID)
		return err
	})
	return i
}

func (c *Container) endpoint(networkName string) *network.EndpointSettings {
	c.e.tb.Helper()
	endpoint := c.Inspect().NetworkSettings.Networks[networkName]
	if endpoint == nil {
		c.e.tb.Fatalf("container %s is not on network %s", c.Name, networkName)
	}
	return endpoint
}

// IP returns the container's IPv4 address on a network.
func (c *Container) IP(networkName string) netip.Addr {
	c.e.tb.Helper()
	return c.address(networkName, c.endpoint(networkName).IPAddress)
}

// IP6 returns the container's IPv6 address on a network.
func (c *Container) IP6(networkName string) netip.Addr {
	c.e.tb.Helper()
	return c.address(networkName, c.endpoint(networkName).GlobalIPv6Address)
}

func (c *Container) address(networkName, text string) netip.Addr {
	c.e.tb.Helper()
	ip, err := netip.ParseAddr(text)
	c.e.must(err, "read address of %s on %s", c.Name, networkName)
	return ip
}

// Addr returns "address:port" for the container's IPv4 address on a network.
func (c *Container) Addr(networkName string, port uint16) string {
	c.e.tb.Helper()
	return netip.AddrPortFrom(c.IP(networkName), port).String()
}

// Addr6 returns "[address]:port" for the container's IPv6 address on a network.
func (c *Container) Addr6(networkName string, port uint16) string {
	c.e.tb.Helper()
	return netip.AddrPortFrom(c.IP6(networkName), port).String()
}

// MAC returns the container's MAC address on a network.
func (c *Container) MAC(networkName string) string {
	c.e.tb.Helper()
	return c.endpoint(networkName).MacAddress
}

// PID returns the process id of the container's program, on this machine.
func (c *Container) PID() int {
	c.e.tb.Helper()
	pid := c.Inspect().State.Pid
	if pid == 0 {
		c.e.tb.Fatalf("container %s does not run", c.Name)
	}
	return pid
}
