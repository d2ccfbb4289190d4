package tc_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"netguard/shaper"
	"netguard/shaper/tc"
)

// BenchmarkEndpoints is what limits in both directions cost an endpoint where many
// have some: the time to put them in place, and to list what the kernel has, and
// the kernel's memory.
func BenchmarkEndpoints(b *testing.B) {
	const n = 100
	for _, kind := range []shaper.Leaf{shaper.FQCodel, shaper.SFQ, shaper.Hashed} {
		b.Run(string(kind), func(b *testing.B) {
			runtime.LockOSThread()
			ns, err := netns.New()
			if err != nil {
				b.Fatal(err)
			}
			defer ns.Close()
			d, err := tc.Open()
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			tree, err := shaper.Build(shaper.Limit{Rate: 10 * shaper.Mbit}, 1500, kind)
			if err != nil {
				b.Fatal(err)
			}
			var veths []int
			for i := range n {
				pair := &vish.Veth{LinkAttrs: vish.NewLinkAttrs(), PeerName: fmt.Sprintf("in%d", i)}
				pair.Name = fmt.Sprintf("out%d", i)
				if err := vish.LinkAdd(pair); err != nil {
					b.Fatal(err)
				}
				veths = append(veths, pair.Index)
			}
			steps := shaper.Diff(shaper.Endpoint{}, shaper.Wish{Ingress: &tree, Egress: &tree})
			before := kernelMemory(b)
			b.Run("add", func(b *testing.B) {
				clean := func() {
					b.StopTimer()
					if err := d.Cleanup(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				clean()
				for i := range b.N {
					if err := d.Apply(veths[i%n], "x", steps); err != nil {
						b.Skip(err) // the kernel lacks it
					}
					if i%n == n-1 && i < b.N-1 {
						clean()
					}
				}
				b.ReportMetric(float64(len(steps)), "messages")
			})
			for _, v := range veths {
				s, err := d.Snapshot()
				if err != nil {
					b.Fatal(err)
				}
				have, err := s.Endpoint(v)
				if err == nil {
					err = d.Apply(v, "x", shaper.Diff(have, shaper.Wish{Ingress: &tree, Egress: &tree}))
				}
				if err != nil {
					b.Skip(err)
				}
			}
			b.Run("list", func(b *testing.B) {
				for b.Loop() {
					if _, err := d.Snapshot(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((kernelMemory(b)-before)/n, "kB/endpoint")
				b.ReportMetric(n, "endpoints")
			})
		})
	}
}

// kernelMemory is what the kernel has in slabs, in kB.
func kernelMemory(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nSlab:")
	var kB float64
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		b.Fatal(err)
	}
	return kB
}
