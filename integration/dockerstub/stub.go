// Package dockerstub answers as a Docker engine does, for more containers than a test
// machine can run.
//
// It replaces only the engine: its API on a unix socket, and its work in the kernel.
// Bridges, their ports, the containers' network namespaces and Docker's firewall rules are
// real. A container has no process. Answers, events and their order are those of Docker
// 20.10. TestStub compares them with a real engine.
package dockerstub

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"netguard/integration/harness"
)

// PortsPerBridge is how many ports a kernel bridge can have.
const PortsPerBridge = 1023

// Engine is a stub of a Docker engine, on a harness host without dockerd.
type Engine struct {
	tb     harness.TB
	host   *harness.Engine
	kernel *netlink.Handle // on the host

	mu          sync.Mutex
	networks    map[string]*Network // by ID
	containers  map[string]*Container
	order       []*Container // as they were created
	past        []event
	subscribers map[*subscriber]struct{}
}

// Start runs a stub engine at the host's socket until the test is over. Start the host with
// [harness.WithoutDaemon].
func Start(tb harness.TB, host *harness.Engine) *Engine {
	tb.Helper()
	e := &Engine{
		tb: tb, host: host, networks: map[string]*Network{}, containers: map[string]*Container{},
		subscribers: map[*subscriber]struct{}{},
	}
	e.must(host.Do(func() (err error) {
		e.kernel, err = netlink.NewHandle()
		return err
	}), "open netlink")
	tb.Cleanup(e.kernel.Close)
	e.must(e.firewall(), "write Docker's rules")
	for _, name := range []string{"none", "host"} {
		n := &Network{Name: name, ID: newID(), Driver: name}
		if name == "none" {
			n.Driver = "null"
		}
		e.networks[n.ID] = n
	}
	e.addNetwork("bridge", "docker0", "172.17.0.0/16", map[string]string{
		"com.docker.network.bridge.default_bridge": "true", "com.docker.network.bridge.enable_icc": "true",
		"com.docker.network.bridge.enable_ip_masquerade": "true", "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
		"com.docker.network.bridge.name": "docker0", "com.docker.network.driver.mtu": "1500",
	})
	listener, err := net.Listen("unix", strings.TrimPrefix(host.Host(), "unix://"))
	e.must(err, "listen at the engine's socket")
	server := &http.Server{Handler: e.handler()}
	go func() { _ = server.Serve(listener) }()
	tb.Cleanup(func() {
		_ = server.Close()
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, c := range e.containers {
			c.close()
		}
	})
	return e
}

// must ends the test when err is not nil.
func (e *Engine) must(err error, format string, args ...any) {
	if err != nil {
		e.tb.Helper()
		e.tb.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// Container is a stub container: it has a network namespace and no process.
type Container struct {
	ID, Name string

	e       *Engine
	network *Network
	labels  map[string]string
	image   string
	created time.Time
	port    port

	// The engine's mutex guards what follows.
	state      string
	endpointID string // "" while it is on no network
}

// Create creates a container and sends the event.
func (e *Engine) Create(name, image string, on *Network, labels map[string]string) *Container {
	e.tb.Helper()
	c := &Container{ID: newID(), Name: name, e: e, network: on, labels: labels, image: image, created: time.Now(), state: "created"}
	e.mu.Lock()
	defer e.mu.Unlock()
	c.port.address = on.take()
	e.containers[c.ID] = c
	e.order = append(e.order, c)
	e.tell("container", "create", c.ID, map[string]string{"image": image, "name": name})
	return c
}

// Order is the order of an engine's steps when it starts a container.
type Order int

const (
	// ConnectFirst sends the event of the connection before the container's end of the link
	// is up, as Docker 20.10 does.
	ConnectFirst Order = iota
	// LinkFirst sends the event of the connection last, as Docker 28.5 and 29 do.
	LinkFirst
)

// times are those of an engine's steps, measured with one container at a time.
type times struct {
	between time.Duration // from one of the event of the connection and the link that is up to the other
	launch  time.Duration // at least, from the later of the two to the first instruction
}

// steps are the times of Docker 20.10 and of 28.5. Docker 29 takes 13 ms where 28.5 takes 17.
var steps = [...]times{
	ConnectFirst: {between: 200 * time.Millisecond, launch: 44 * time.Millisecond},
	LinkFirst:    {between: 45 * time.Millisecond, launch: 17 * time.Millisecond},
}

// Turnover is the time from the end of a container to the event of the next one's
// connection: at least 38 ms with Docker 20.10, 290 ms with 28.5.
const Turnover = 30 * time.Millisecond

// Start starts the container, and calls ready at its first instruction: from then on only
// netguard holds its first packet back.
func (c *Container) Start(order Order, ready func()) {
	c.e.tb.Helper()
	c.e.must(c.port.add(c.e, c.network), "add port of %s", c.Name)
	if order == ConnectFirst {
		c.connect()
		time.Sleep(steps[order].between)
	}
	c.e.must(c.port.open(c.e, c.network), "open link of %s", c.Name)
	if order == LinkFirst {
		time.Sleep(steps[order].between)
		c.connect()
	}
	time.Sleep(steps[order].launch)
	if ready != nil {
		ready()
	}
	c.run()
}

// Fill starts the container at once. It is for containers that run before the agent starts.
func (c *Container) Fill() {
	c.e.tb.Helper()
	c.e.must(c.port.add(c.e, c.network), "add port of %s", c.Name)
	c.e.must(c.port.open(c.e, c.network), "open link of %s", c.Name)
	c.connect()
	c.run()
}

func (c *Container) connect() {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.endpointID = newID()
	c.network.attached[c.ID] = c
	c.e.tell("network", "connect", c.network.ID, map[string]string{"container": c.ID, "name": c.network.Name, "type": "bridge"})
}

func (c *Container) run() {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.state = "running"
	c.e.tell("container", "start", c.ID, map[string]string{"image": c.image, "name": c.Name})
}

// Remove stops the container and removes it, as docker rm -f.
func (c *Container) Remove() {
	c.e.tb.Helper()
	e := c.e
	about := map[string]string{"image": c.image, "name": c.Name}
	e.mu.Lock()
	e.tell("container", "kill", c.ID, about)
	c.state = "exited"
	e.tell("container", "die", c.ID, about)
	e.mu.Unlock()
	e.must(c.port.remove(e), "remove port of %s", c.Name)
	e.mu.Lock()
	defer e.mu.Unlock()
	c.endpointID = ""
	delete(c.network.attached, c.ID)
	e.tell("network", "disconnect", c.network.ID, map[string]string{"container": c.ID, "name": c.network.Name, "type": "bridge"})
	delete(e.containers, c.ID)
	e.order = slices.DeleteFunc(e.order, func(o *Container) bool { return o == c })
	c.network.give(c.port.address)
	e.tell("container", "destroy", c.ID, about)
	c.close()
}

func newID() string {
	raw := make([]byte, 32)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}
