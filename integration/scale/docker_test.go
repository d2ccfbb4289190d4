package scale

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"netguard/integration/harness"
)

// real is a world of containers that run.
type real struct {
	b       testing.TB
	e       *harness.Engine
	subnets []string
	made    int
}

func newReal(b testing.TB, count int) world {
	r := &real{b: b, e: harness.Start(b), subnets: subnets(count)}
	for i, subnet := range r.subnets {
		r.e.Network(fmt.Sprintf("shop_net%d", i), harness.Subnet(subnet))
	}
	return r
}

func (r *real) engine() *harness.Engine { return r.e }

// gateway is the bridge's address on the network of a container.
func (r *real) gateway(n int) netip.Addr {
	return netip.MustParsePrefix(r.subnets[n%len(r.subnets)]).Addr().Next()
}

func (r *real) create(options ...harness.ContainerOption) *realGuest {
	g := &realGuest{r: r, n: r.made}
	r.made++
	options = append(options, harness.On(fmt.Sprintf("shop_net%d", g.n%len(r.subnets))), harness.Labels(labels(g.n)))
	g.c = r.e.Create(fmt.Sprintf("shop-%s-%d", service(g.n), g.n/services+1), options...)
	return g
}

func (r *real) fill(count int) {
	var starts errgroup.Group
	starts.SetLimit(4)
	for range count {
		g := r.create()
		starts.Go(func() error { return g.c.TryStart(r.b.Context()) })
	}
	if err := starts.Wait(); err != nil {
		r.b.Fatalf("start container: %v", err)
	}
}

func (r *real) start() guest {
	g := r.create()
	g.c.Start()
	return g
}

// admission has a container connect by its first instruction. What that takes is what
// netguard takes beyond the engine, and a fraction of a millisecond.
func (r *real) admission() (time.Duration, error) {
	g := r.create(harness.Doing("connect", "tcp", netip.AddrPortFrom(r.gateway(r.made), echo).String(), "10s"))
	g.c.Start()
	g.c.Wait()
	var got harness.Reach
	if err := json.Unmarshal([]byte(strings.TrimSpace(g.c.Logs())), &got); err != nil || !got.Answered() {
		return 0, fmt.Errorf("%s said %q: %w", g.c.Name, g.c.Logs(), err)
	}
	g.c.Remove()
	return time.Duration(got.TookMS * float64(time.Millisecond)), nil
}

type realGuest struct {
	r *real
	n int
	c *harness.Container
}

func (g *realGuest) name() string { return g.c.Name }
func (g *realGuest) remove()      { g.c.Remove() }

func (g *realGuest) dial(port uint16) *net.UDPConn {
	var conn *net.UDPConn
	err := g.c.Inside().Do(func() (err error) {
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(g.r.gateway(g.n), port)))
		return err
	})
	if err != nil {
		g.r.b.Fatal(err)
	}
	return conn
}
