package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// many makes a bridge with n ports and the wish for them, in a network namespace. in runs
// a part of the benchmark there.
func many(b *testing.B, n int) (d *Driver, w Wish, in func(name string, f func(*testing.B))) {
	b.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ns.Close() })
	in = func(name string, f func(*testing.B)) {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			if err := netns.Set(ns); err != nil {
				b.Fatal(err)
			}
			f(b)
		})
	}
	attrs := func(name string) vish.LinkAttrs {
		a := vish.NewLinkAttrs()
		a.Name = name
		return a
	}
	br := &vish.Bridge{LinkAttrs: attrs(bridgeName)}
	if err := vish.LinkAdd(br); err != nil {
		b.Fatal(err)
	}
	if err := vish.LinkSetUp(br); err != nil {
		b.Fatal(err)
	}
	w = Wish{Options: Options{Storm: DefaultStorm, FragmentRate: DefaultFragmentRate}, Bridges: []Bridge{{Index: br.Index, Name: bridgeName}}}
	for i := range n {
		v := &vish.Veth{LinkAttrs: attrs(fmt.Sprintf("v%d", i)), PeerName: fmt.Sprintf("p%d", i)}
		v.MasterIndex = br.Index
		if err := vish.LinkAdd(v); err != nil {
			b.Fatal(err)
		}
		w.Ports = append(w.Ports, &Port{Index: v.Index, Bridge: br.Index, MAC: MAC{2, 0, 0, 0, byte(i >> 8), byte(i)},
			IPv4: netip4(10, 0, byte(i>>8), byte(i)), IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}),
			Guarded: true, Admitted: true, Connections: DefaultConnections})
	}
	f, err := Probe()
	if err != nil {
		b.Fatal(err)
	}
	if d, err = Open(f, slog.New(slog.DiscardHandler)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	return d, w, in
}

func mustApply(b *testing.B, d *Driver, w Wish, look Look) {
	b.Helper()
	r, err := d.Apply(w, look)
	if err != nil {
		b.Fatal(err)
	}
	for index, p := range r.Ports {
		if p.State != Admitted {
			b.Fatalf("port %d is %s: %q", index, p.State, p.Faults)
		}
	}
}

// cpu is what this process has used of the processor, in the kernel as well.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDriver is what the driver costs with 10 and with 1,000 containers.
func BenchmarkDriver(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("%d_ports", n), func(b *testing.B) {
			d, w, in := many(b, n)
			in("all_new", func(b *testing.B) {
				for b.Loop() {
					mustApply(b, d, w, Everything)
					b.StopTimer()
					if err := d.Cleanup(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
			mustApply(b, d, w, Everything)
			in("nothing_new_all_read", func(b *testing.B) {
				for b.Loop() {
					mustApply(b, d, w, Everything)
				}
			})
			in("nothing_new", func(b *testing.B) {
				for b.Loop() {
					mustApply(b, d, w, Look{})
				}
			})
			in("status", func(b *testing.B) {
				for b.Loop() {
					if r, err := d.Read(Look{}); err != nil || r.Changes > 0 {
						b.Fatal(r.Drift, err)
					}
				}
			})
			in("one_goes_and_comes", func(b *testing.B) {
				less := w
				less.Ports = w.Ports[1:]
				for b.Loop() {
					mustApply(b, d, less, Look{})
					mustApply(b, d, w, Look{})
				}
			})
			in("one_starts", func(b *testing.B) {
				// As an agent does: it is closed, the kernel tells of its port, it is
				// admitted, and the kernel tells of that.
				less, closed := w, w
				less.Ports, closed.Ports = w.Ports[1:], slices.Clone(w.Ports)
				closed.Ports[0] = &Port{Index: w.Ports[0].Index, Bridge: w.Ports[0].Bridge, Guarded: true}
				look := Look{Links: map[int]struct{}{w.Ports[0].Index: {}, w.Ports[0].Bridge: {}}, MACs: map[MAC]struct{}{w.Ports[0].MAC: {}}}
				var used time.Duration
				for b.Loop() {
					b.StopTimer()
					mustApply(b, d, less, Look{})
					b.StartTimer()
					began := cpu(b)
					if _, err := d.Apply(closed, look); err != nil {
						b.Fatal(err)
					}
					if _, err := d.Apply(closed, look); err != nil {
						b.Fatal(err)
					}
					mustApply(b, d, w, look)
					mustApply(b, d, w, look)
					used += cpu(b) - began
				}
				b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
			})
			in("what_nobody_tells_of", func(b *testing.B) {
				for b.Loop() {
					mustApply(b, d, w, Look{Unheard: true})
				}
			})
			counters := map[string]elements{setViolations: {}}
			for _, p := range w.Ports {
				for k := kindMAC; k <= kinds; k++ {
					counters[setViolations][counted{p.Index, k}.element()] = ""
				}
			}
			in("violations_when_there_are_none", func(b *testing.B) {
				for b.Loop() {
					if _, err := d.Violations(); err != nil {
						b.Fatal(err)
					}
				}
			})
			d.counts = nil
			if err := d.filter.commit(change{add: counters}, d.layout.sets); err != nil {
				b.Fatal(err)
			}
			in("violations_of_every_kind_by_all", func(b *testing.B) {
				for b.Loop() {
					if v, err := d.Violations(); err != nil || len(v) != n {
						b.Fatal(len(v), err)
					}
				}
			})
			in("cleanup", func(b *testing.B) {
				for b.Loop() {
					if err := d.Cleanup(); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					mustApply(b, d, w, Everything)
					b.StartTimer()
				}
			})
		})
	}
}

// BenchmarkFrame is what a frame from one container to another costs, from the
// sender's system call to the receiver's socket, without and with the guard, whose
// sets hold as many other ports.
func BenchmarkFrame(b *testing.B) {
	for _, others := range []int{0, 1000} {
		b.Run(fmt.Sprintf("%d_others", others), func(b *testing.B) {
			d, w, in := many(b, 2)
			sockets := [2]int{}
			for i := range 2 {
				for _, name := range []string{fmt.Sprintf("v%d", i), fmt.Sprintf("p%d", i)} {
					l, err := vish.LinkByName(name)
					if err == nil {
						err = vish.LinkSetUp(l)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				sockets[i] = packetSocket(b, fmt.Sprintf("p%d", i), unix.ETH_P_ALL)
			}
			x, y := w.Ports[0], w.Ports[1]
			for i := range others {
				p := x
				p.Index, p.MAC = 100000+i, MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
				p.IPv4, p.IPv6 = netip4(10, 1, byte(i>>8), byte(i)), netip.Addr{}
				w.Ports = append(w.Ports, p)
			}
			frames := map[string][]byte{
				"IPv4_UDP":  ether(y.MAC, x.MAC, 0x800, ip4(x.IPv4, y.IPv4, 17, udpPacket(1, 2))),
				"IPv6_UDP":  ether(y.MAC, x.MAC, 0x86dd, ip6(x.IPv6, y.IPv6, 17, udpPacket(1, 2))),
				"IPv6_TCP":  ether(y.MAC, x.MAC, 0x86dd, ip6(x.IPv6, y.IPv6, 6, make([]byte, 20))),
				"IPv4_echo": ether(y.MAC, x.MAC, 0x800, ip4(x.IPv4, y.IPv4, 1, []byte{8, 0, 0, 0, 0, 1, 0, 1})),
			}
			measure := func(b *testing.B, name string) {
				f := frames[name]
				buf := make([]byte, 256)
				for b.Loop() {
					if _, err := unix.Write(sockets[0], f); err != nil {
						b.Fatal(err)
					}
					for {
						n, err := unix.Read(sockets[1], buf)
						if errors.Is(err, unix.EINTR) {
							continue
						}
						if err != nil {
							b.Fatal(err)
						}
						if n == len(f) {
							break
						}
					}
				}
			}
			// So that the bridge knows both.
			for i, p := range []*Port{x, y} {
				if _, err := unix.Write(sockets[i], ether(broadcast, p.MAC, 0x806, arpPacket(1, p.MAC, p.IPv4, MAC{}, p.IPv4))); err != nil {
					b.Fatal(err)
				}
			}
			names := []string{"IPv4_UDP", "IPv6_UDP", "IPv6_TCP", "ARP"}
			for _, name := range names {
				in("without/"+name, func(b *testing.B) { measure(b, name) })
			}
			if _, err := d.Apply(w, Everything); err != nil {
				b.Fatal(err)
			}
			for _, name := range names {
				in("with/"+name, func(b *testing.B) { measure(b, name) })
			}
		})
	}
}

// BenchmarkRefused is what a frame costs that is refused, from the sender's system
// call to the drop, while nobody listens to samples, without them
// and with them.
func BenchmarkRefused(b *testing.B) {
	for _, samples := range []bool{false, true} {
		b.Run(fmt.Sprintf("samples=%t", samples), func(b *testing.B) {
			d, w, _ := many(b, 2)
			d.features.Samples = samples
			for _, name := range []string{"v0", "p0"} {
				l, err := vish.LinkByName(name)
				if err == nil {
					err = vish.LinkSetUp(l)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			socket := packetSocket(b, "p0", unix.ETH_P_ALL)
			mustApply(b, d, w, Everything)
			f := ether(w.Ports[1].MAC, nobody, 0x800, ip4(w.Ports[0].IPv4, w.Ports[1].IPv4, 17, udpPacket(1, 2)))
			for b.Loop() {
				if _, err := unix.Write(socket, f); err != nil && !errors.Is(err, unix.ENOBUFS) {
					b.Fatal(err)
				}
			}
		})
	}
}
