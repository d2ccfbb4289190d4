package scale

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/integration/dockerstub"
	"netguard/integration/harness"
)

const (
	// services is how many services there are, each with a policy.
	services = 50
	// echo is the port at which the host answers all containers, opened the one that only
	// an edit of a policy opens.
	echo, opened = 7, 8
	// fewNetworks is how many there are up to the size of a few bridges, perNetwork how
	// many ports a bridge gets beyond.
	fewNetworks, perNetwork = 4, 700
	// longest is how long anything may take, first what the agent does when it has never
	// been there.
	longest, first = 2 * time.Minute, 5 * time.Minute
)

// world is an engine with containers, real or played.
type world interface {
	// fill starts so many containers, before there is an agent.
	fill(count int)
	// start starts one more, admission another one that goes again: how long it took, beyond
	// what the engine takes, until a packet got through.
	start() guest
	admission() (time.Duration, error)
	engine() *harness.Engine
}

// guest is one container.
type guest interface {
	dial(port uint16) *net.UDPConn
	remove()
	name() string
}

func service(n int) string { return fmt.Sprintf("svc%02d", n%services) }

// policy is what is said of a service; more is a port of the host that it may ask as well.
func policy(n int, more ...int) string {
	ports := fmt.Sprintf("tcp/%[1]d, udp/%[1]d", echo)
	for _, p := range more {
		ports += fmt.Sprintf(", udp/%d", p)
	}
	return fmt.Sprintf(`name: %[1]s
select: {project: shop, service: %[1]s}
ingress:
  - from: [{service: %[2]s}, {service: %[3]s}]
    ports: [tcp/80, tcp/%[5]d]
egress:
  - to: [{service: %[4]s}]
    ports: [tcp/80, tcp/%[6]d]
  - to: [{entity: host}]
    ports: [%[7]s]
`, service(n), service(n+1), service(n+7), service(n+services-1), 8000+n, 8000+(n+services-1)%services, ports)
}

func policyFile(n int) string { return service(n) + ".yaml" }

func policies() []harness.AgentOption {
	var all []harness.AgentOption
	for n := range services {
		all = append(all, harness.Policy(policyFile(n), policy(n)))
	}
	return all
}

// labels are what Compose gives to the container number n, and limits for every other one.
func labels(n int) map[string]string {
	all := map[string]string{
		"com.docker.compose.config-hash":          fmt.Sprintf("%064x", n%services),
		"com.docker.compose.container-number":     strconv.Itoa(n/services + 1),
		"com.docker.compose.depends_on":           service(n+services-1) + ":service_started:false",
		"com.docker.compose.image":                fmt.Sprintf("sha256:%064x", n%services),
		"com.docker.compose.oneoff":               "False",
		"com.docker.compose.project":              "shop",
		"com.docker.compose.project.config_files": "/srv/shop/docker-compose.yml",
		"com.docker.compose.project.working_dir":  "/srv/shop",
		"com.docker.compose.service":              service(n),
		"com.docker.compose.version":              "2.29.7",
	}
	if (n+n/services)%2 == 1 {
		all["netguard.ingress.rate"] = "20mbit"
		all["netguard.egress.rate"] = "10mbit"
	}
	return all
}

// subnets are the networks that so many containers live on.
func subnets(count int) []string {
	n := fewNetworks
	for n*perNetwork < count {
		n++
	}
	var all []string
	for i := range n {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(4 * i), 0}), 22).String())
	}
	return all
}

// synced waits until the agent says that all endpoints, and no fewer than so many, are in
// sync, or until ctx ends.
func synced(ctx context.Context, socket string, endpoints int) error {
	client := control.NewClient(socket)
	var last control.Status
	for {
		began := time.Now()
		s, err := client.Status(ctx)
		if err == nil {
			last = s
		}
		if err == nil && s.InSync && len(s.Endpoints) >= endpoints && harness.AllAdmitted(s) {
			return nil
		}
		select {
		// Nothing tells when the status changes. To ask more often would slow down what is waited for.
		case <-time.After(max(20*time.Millisecond, time.Since(began))):
		case <-ctx.Done():
			admitted := 0
			for _, e := range last.Endpoints {
				if harness.Whole(e) {
					admitted++
				}
			}
			return fmt.Errorf("%d of %d endpoints are admitted (%v)", admitted, endpoints, err)
		}
	}
}

// played is a world behind the stub.
type played struct {
	b        testing.TB
	e        *harness.Engine
	stub     *dockerstub.Engine
	networks []*dockerstub.Network
	made     int
}

func newPlayed(b testing.TB, count int) world {
	p := &played{b: b, e: harness.Start(b, harness.WithoutDaemon())}
	p.stub = dockerstub.Start(b, p.e)
	for i, subnet := range subnets(count) {
		p.networks = append(p.networks, p.stub.Network(fmt.Sprintf("shop_net%d", i), subnet))
	}
	return p
}

func (p *played) engine() *harness.Engine { return p.e }

func (p *played) create() *playedGuest {
	n, on := p.made, p.networks[p.made%len(p.networks)]
	p.made++
	return &playedGuest{p.b, p.stub.Create(fmt.Sprintf("shop-%s-%d", service(n), n/services+1), "shop-"+service(n), on, labels(n)), on.Gateway}
}

func (p *played) fill(count int) {
	for range count {
		p.create().c.Fill()
	}
}

func (p *played) start() guest {
	g := p.create()
	g.c.Start(dockerstub.Order(p.made%2), nil)
	return g
}

func (p *played) admission() (took time.Duration, err error) {
	g := p.create()
	g.c.Start(dockerstub.Order(p.made%2), func() { took, err = through(g.dial(echo)) })
	if err == nil {
		g.remove()
	}
	return took, err
}

type playedGuest struct {
	b       testing.TB
	c       *dockerstub.Container
	gateway netip.Addr
}

func (g *playedGuest) name() string { return g.c.Name }
func (g *playedGuest) remove()      { g.c.Remove() }

func (g *playedGuest) dial(port uint16) *net.UDPConn {
	conn, err := g.c.DialUDP(netip.AddrPortFrom(g.gateway, port))
	if err != nil {
		g.b.Fatal(err)
	}
	return conn
}
