package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// shopOf is a host of n containers in three tiers. More are ports of the last one that the
// second may ask as well.
func shopOf(n int, more ...string) netpolicy.World {
	ports := strings.Join(append([]string{"tcp/5432"}, more...), ", ")
	c := netpolicy.Load([]netpolicy.Source{{Name: "shop.yaml", Data: []byte(`
name: db
select: {service: db}
ingress: [{from: [{service: api}], ports: [` + ports + `]}]
egress: []
---
name: api
select: {service: api}
ingress: [{from: [{service: web}], ports: [tcp/80]}]
---
name: metadata
select: {}
deny: [{egress: {to: [{cidr: 169.254.169.254/32}]}}]
`)}})
	w := netpolicy.World{Policies: c.Policies()}
	for i := range 48 { // more, about nobody
		more := netpolicy.Load([]netpolicy.Source{{Name: "more.yaml", Data: fmt.Appendf(nil,
			"{name: more%d, select: {service: s%d}, ingress: [{from: [{service: t%d}], ports: [tcp/%d]}]}", i, i, i, i+1)}})
		w.Policies = append(w.Policies, more.Policies()...)
	}
	for i := range n {
		w.Endpoints = append(w.Endpoints, &netpolicy.Endpoint{
			Workload: netpolicy.Workload{ID: fmt.Sprint(i), Name: fmt.Sprint("c", i), Service: []string{"web", "api", "db"}[i%3]},
			Network:  "n", Managed: true,
			Addrs: []netip.Addr{addr(fmt.Sprintf("10.77.%d.%d", i/250, i%250+1)), addr(fmt.Sprintf("2001:db8:77::%x:%x", i/250, i%250+1))},
		})
	}
	return w
}

func wishOf(w netpolicy.World) Wish {
	wish := Wish{Rules: netpolicy.Compile(w)}
	for _, e := range w.Endpoints {
		wish.Containers = append(wish.Containers, e.Addrs...)
		for _, a := range e.Addrs {
			wish.Homes = append(wish.Homes, Home{a, "br-" + e.Network})
		}
	}
	return wish
}

// work is the processor time of this process and those that it ran.
func work(b *testing.B) time.Duration {
	b.Helper()
	var all time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		all += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return all
}

// measured reports the processor time of b's loop, which begins now.
func measured(b *testing.B) func() {
	before := work(b)
	return func() {
		b.ReportMetric(float64((work(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	}
}

// BenchmarkOneMore is what a container that comes and goes costs Apply.
func BenchmarkOneMore(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			namespace(b)
			d := open(b)
			fewer, more := wishOf(shopOf(n)), wishOf(shopOf(n+1))
			apply(b, d, fewer)
			var messages, forks int
			defer measured(b)()
			for b.Loop() {
				for _, w := range []Wish{more, fewer} {
					r := apply(b, d, w)
					messages, forks = messages+r.Messages, forks+r.Forks
				}
			}
			b.ReportMetric(float64(messages)/float64(b.N), "messages/op")
			b.ReportMetric(float64(forks)/float64(b.N), "forks/op")
		})
	}
}

// BenchmarkFirst is a start on a host that has nothing yet, without opening.
func BenchmarkFirst(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			namespace(b)
			d := open(b)
			w := wishOf(shopOf(n))
			for b.Loop() {
				apply(b, d, w)
				b.StopTimer()
				if err := d.Cleanup(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkVerify is a look at everything.
func BenchmarkVerify(b *testing.B) {
	namespace(b)
	d := open(b)
	apply(b, d, wishOf(shopOf(1000)))
	defer measured(b)()
	for b.Loop() {
		if drift, err := d.Verify(context.Background()); err != nil || len(drift.Changes) > 0 {
			b.Fatal(drift, err)
		}
	}
}

// BenchmarkCut goes over 20,000 connections, of which it keeps all, and then ends
// them all.
func BenchmarkCut(b *testing.B) {
	const n = 20000
	for _, keep := range []bool{true, false} {
		b.Run(fmt.Sprintf("keep=%t", keep), func(b *testing.B) {
			namespace(b)
			d := open(b)
			apply(b, d, wishOf(shopOf(1000)))
			c := connections(b)
			fill := func() {
				for i := range n {
					f := conntrack.NewFlow(17, 0, addr("10.77.0.1"), addr("10.77.0.2"), uint16(1000+i), uint16(2000+i), 300, 0)
					if err := c.Create(f); err != nil {
						b.Fatal(err)
					}
				}
			}
			fill()
			defer measured(b)()
			for b.Loop() {
				r, err := d.Cut(context.Background(), true, func(Flow) bool { return keep })
				if err != nil || r.Seen != n {
					b.Fatal(r, err)
				}
				if !keep {
					b.StopTimer()
					fill()
					b.StartTimer()
				}
			}
		})
	}
}

// BenchmarkEdit is what it takes to change the rules of one policy of 51.
func BenchmarkEdit(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			namespace(b)
			d := open(b)
			was, is := wishOf(shopOf(n)), wishOf(shopOf(n, "tcp/5433"))
			apply(b, d, was)
			var forks int
			defer measured(b)()
			for b.Loop() {
				for _, w := range []Wish{is, was} {
					forks += apply(b, d, w).Forks
				}
			}
			b.ReportMetric(float64(forks)/float64(b.N), "forks/op")
		})
	}
}
