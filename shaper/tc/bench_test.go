package tc_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

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
			var trees [2]shaper.Tree
			for _, dir := range shaper.Directions {
				if trees[dir], err = shaper.Build(shaper.Limit{Rate: 10 * shaper.Mbit}, dir, 1500, kind); err != nil {
					b.Fatal(err)
				}
			}
			want := shaper.Wish{Ingress: &trees[shaper.Ingress], Egress: &trees[shaper.Egress]}
			var veths []int
			for i := range n {
				pair := &vish.Veth{LinkAttrs: vish.NewLinkAttrs(), PeerName: fmt.Sprintf("in%d", i)}
				pair.Name = fmt.Sprintf("out%d", i)
				if err := vish.LinkAdd(pair); err != nil {
					b.Fatal(err)
				}
				veths = append(veths, pair.Index)
			}
			steps := shaper.Diff(shaper.Endpoint{}, want)
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
				began := cpu(b)
				var cleaned time.Duration
				for i := range b.N {
					if err := d.Apply(veths[i%n], "x", steps); err != nil {
						b.Skip(err) // the kernel lacks it
					}
					if i%n == n-1 && i < b.N-1 {
						at := cpu(b)
						clean()
						cleaned += cpu(b) - at
					}
				}
				b.ReportMetric(float64((cpu(b)-began-cleaned).Microseconds())/1000/float64(b.N), "cpu-ms/endpoint")
				b.ReportMetric(float64(len(steps)), "messages")
			})
			for _, v := range veths {
				s, err := d.Snapshot()
				if err != nil {
					b.Fatal(err)
				}
				have, err := s.Endpoint(v)
				if err == nil {
					err = d.Apply(v, "x", shaper.Diff(have, want))
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
			b.Run("port", func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				began := cpu(b)
				for i := range b.N {
					if _, err := d.Read([]int{veths[i%n]}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((cpu(b)-began).Microseconds())/1000/float64(b.N), "cpu-ms/port")
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

// cpu is what this thread has used of a core, in the kernel for the most part. It is
// the same on a busy machine.
func cpu(b *testing.B) time.Duration {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
