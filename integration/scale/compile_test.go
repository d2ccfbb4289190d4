package scale

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"netguard/netpolicy"
)

// many is how many policies and containers are compiled at once.
const many = 1000

// compiled is how long a compilation takes where everything is new: the quickest of 15, which
// was disturbed least.
func compiled(b testing.TB) float64 {
	b.Helper()
	var sources []netpolicy.Source
	w := netpolicy.World{}
	for i := range many {
		name := func(n int) string { return fmt.Sprintf("s%04d", (n+many)%many) }
		sources = append(sources, netpolicy.Source{Name: name(i) + ".yaml", Data: []byte(fmt.Sprintf(
			"name: %[1]s\nselect: {project: shop, service: %[1]s}\ningress: [{from: [{service: %[2]s}, {service: %[3]s}], ports: [tcp/80]}]\negress: [{to: [{service: %[4]s}], ports: [tcp/80]}]\n",
			name(i), name(i+1), name(i+7), name(i-1)))})
		w.Endpoints = append(w.Endpoints, &netpolicy.Endpoint{
			Workload: netpolicy.Workload{ID: name(i), Name: "shop-" + name(i) + "-1", Project: "shop", Service: name(i), Labels: labels(i)},
			Network:  fmt.Sprintf("shop_net%d", i%fewNetworks), Managed: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(4*(i%fewNetworks) + i/fewNetworks/250), byte(2 + i/fewNetworks%250)})},
		})
	}
	catalog := netpolicy.Load(sources)
	if w.Policies = catalog.Policies(); len(w.Policies) != many {
		b.Fatalf("%d policies", len(w.Policies))
	}
	quickest := math.Inf(1)
	for range 15 {
		began := time.Now()
		netpolicy.Compile(w)
		quickest = min(quickest, ms(time.Since(began)))
	}
	return quickest
}
