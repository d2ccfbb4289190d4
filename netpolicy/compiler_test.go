package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// compile parts chains of more than so many rules.
func compile(w World, block int) *RuleSet { return (&Compiler{block: block}).Compile(w) }

// shop is a host of n containers on four networks, and so many policies, each about one
// service.
func shop(n, policies int) World {
	var sources []Source
	name := func(i int) string { return fmt.Sprintf("s%04d", (i+policies)%policies) }
	for i := range policies {
		sources = append(sources, Source{Name: name(i) + ".yaml", Data: []byte(fmt.Sprintf(
			"name: %[1]s\nselect: {project: shop, service: %[1]s}\ningress: [{from: [{service: %[2]s}, {service: %[3]s}], ports: [tcp/80]}]\negress: [{to: [{service: %[4]s}], ports: [tcp/80]}]\n",
			name(i), name(i+1), name(i+7), name(i-1)))})
	}
	w := World{Policies: Load(sources).Policies()}
	for i := range n {
		w.Endpoints = append(w.Endpoints, &Endpoint{
			Workload: Workload{ID: fmt.Sprint("id", i), Name: fmt.Sprintf("shop-%d", i), Project: "shop", Service: name(i),
				Labels: map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": name(i), "com.docker.compose.config-hash": "x", "role": "web"}},
			Network: fmt.Sprint("net", i%4), Bridge: fmt.Sprint("br", i%4), Managed: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)})}})
	}
	return w
}

func BenchmarkCompiler(b *testing.B) {
	for _, c := range [][2]int{{10, 50}, {1000, 50}, {1000, 1000}} {
		w := shop(c[0]+1, c[1])
		b.Run(fmt.Sprintf("%d_containers_%d_policies", c[0], c[1]), func(b *testing.B) {
			b.Run("whole", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					Compile(w)
				}
			})
			b.Run("one_container_more_or_less", func(b *testing.B) {
				b.ReportAllocs()
				var compiler Compiler
				less := w
				less.Endpoints = w.Endpoints[:c[0]]
				compiler.Compile(w)
				for b.Loop() {
					compiler.Compile(less)
					compiler.Compile(w)
				}
			})
		})
	}
}

// drawAddresses gives the endpoints of a world bridges, and extra addresses that they may
// contest, share or have on their bridge alone.
func drawAddresses(t *rapid.T, w *World) {
	extra := rapid.SampledFrom([]string{"10.1.0.9", "10.1.0.3", "fd00:1::9", "192.0.2.9", "192.0.2.200"})
	away := rapid.SampledFrom([]string{"10.1.0.9/32", "192.0.2.0/24", "10.1.0.0/29", "2001:db8::/64"})
	for i := range w.Endpoints {
		e := w.Endpoints[i]
		if !sometimes(t, "no bridge", 10) {
			e.Bridge = "br-" + e.Network
		}
		e.Since = int64(rapid.IntRange(0, 2).Draw(t, "since"))
		if sometimes(t, "extra", 3) {
			e.Extra = []netip.Addr{netip.MustParseAddr(extra.Draw(t, "extra"))}
		}
		if sometimes(t, "away", 6) {
			e.Away = []netip.Prefix{prefixOf(away.Draw(t, "away"))}
		}
		if i > 0 && sometimes(t, "shares addresses", 8) {
			e.Addrs = slices.Clone(w.Endpoints[0].Addrs)
		}
	}
}

// TestCompilerRemembers: whatever changes, a compiler that knows the last world comes to the
// same as one that knows none.
func TestCompilerRemembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		worlds := [2]World{}
		for i := range worlds {
			worlds[i], _ = drawWorld(t)
			drawAddresses(t, &worlds[i])
		}
		block := drawBlock(t)
		c := Compiler{block: block}
		w := worlds[0]
		w.Places = sometimes(t, "places", 2)
		for range 8 {
			from := worlds[rapid.IntRange(0, 1).Draw(t, "from")]
			switch rapid.IntRange(0, 9).Draw(t, "change") {
			case 0:
				w.Endpoints = from.Endpoints
			case 1:
				w.Endpoints = from.Endpoints[:rapid.IntRange(0, len(from.Endpoints)).Draw(t, "some")]
			case 2:
				w.Policies = from.Policies
			case 3:
				w.Policies = from.Policies[:rapid.IntRange(0, len(from.Policies)).Draw(t, "some")]
			case 4:
				w.Places = !w.Places
			case 5:
				w.Broken = from.Broken
			case 6:
				w.Endpoints = rapid.Permutation(w.Endpoints).Draw(t, "order")
			default: // one comes, goes or changes
				i := rapid.IntRange(0, len(w.Endpoints)).Draw(t, "at")
				one := from.Endpoints[rapid.IntRange(0, len(from.Endpoints)-1).Draw(t, "one")]
				switch rapid.IntRange(0, 2).Draw(t, "how") {
				case 0:
					w.Endpoints = slices.Insert(slices.Clone(w.Endpoints), i, one)
				case 1:
					w.Endpoints = slices.Delete(slices.Clone(w.Endpoints), min(i, max(len(w.Endpoints)-1, 0)), min(i+1, len(w.Endpoints)))
				default:
					if w.Endpoints = slices.Clone(w.Endpoints); i < len(w.Endpoints) {
						w.Endpoints[i] = one
					}
				}
			}
			want, got := compile(w, block), c.Compile(w)
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(RuleSet{}, Set{}),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Fatal(diff)
			}
			w.Held, w.Apart = got.Held(w.Endpoints), got.Apart
		}
	})
}

// TestCompilerShares: sets that have the same members as before share them.
func TestCompilerShares(t *testing.T) {
	w := shop(20, 5)
	var c Compiler
	before := c.Compile(w)
	w.Endpoints = w.Endpoints[:19]
	after := c.Compile(w)
	others := 0
	for i, s := range after.V4.Sets {
		if !Shared(s.Members, before.V4.Sets[i].Members) {
			others++
		}
	}
	if before.Generation != after.Generation || others == 0 || others == len(after.V4.Sets) {
		t.Errorf("%d of %d sets have other members", others, len(after.V4.Sets))
	}
}
