package tc_test

import (
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"netguard/internal/asroot"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// vethIn makes a network namespace with a veth pair in it and gives the driver
// of that namespace and the ifindex of one end. The thread is thrown away with
// its namespace when the test ends.
func vethIn(t *testing.T) (*tc.Driver, int) {
	t.Helper()
	asroot.Only(t)
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	pair := &vish.Veth{LinkAttrs: vish.NewLinkAttrs(), PeerName: "inside"}
	pair.Name = "outside"
	if err := vish.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"outside", "inside"} {
		// Without IPv6 the kernel sends nothing of its own, which tests would count.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		l, err := vish.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := vish.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	l, err := vish.LinkByName("outside")
	if err != nil {
		t.Fatal(err)
	}
	d, err := tc.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, l.Attrs().Index
}

func tree(t *testing.T, dir shaper.Direction, rate shaper.Rate, leaf shaper.Leaf) *shaper.Tree {
	t.Helper()
	if rate == 0 {
		return nil
	}
	tree, err := shaper.Build(shaper.Limit{Rate: rate}, dir, 1500, leaf)
	if err != nil {
		t.Fatal(err)
	}
	return &tree
}

// both is the same limit in both directions.
func both(t *testing.T, rate shaper.Rate, leaf shaper.Leaf) shaper.Wish {
	t.Helper()
	return shaper.Wish{Ingress: tree(t, shaper.Ingress, rate, leaf), Egress: tree(t, shaper.Egress, rate, leaf)}
}

func read(t *testing.T, d *tc.Driver, veth int) shaper.Endpoint {
	t.Helper()
	s, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Endpoint(veth)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// apply brings the kernel to the wish and fails the test unless a second look
// finds nothing left to do.
func apply(t *testing.T, d *tc.Driver, veth int, want shaper.Wish) []shaper.Step {
	t.Helper()
	steps := shaper.Diff(read(t, d, veth), want)
	if err := d.Apply(veth, "outside", steps); err != nil {
		t.Fatal(err)
	}
	have := read(t, d, veth)
	if left := shaper.Diff(have, want); len(left) > 0 {
		t.Fatalf("twice is not once: after %v the kernel has %+v and %v is left", steps, have, left)
	}
	return steps
}

func leaf(t *testing.T, d *tc.Driver) shaper.Leaf {
	t.Helper()
	f, err := d.Probe()
	if err != nil {
		t.Fatal(err)
	}
	return f.Leaf
}

func TestDriver(t *testing.T) {
	t.Run("applies_once_and_leaves_nothing_to_do", func(t *testing.T) {
		d, veth := vethIn(t)
		kind := leaf(t, d)
		for _, rate := range []shaper.Rate{64 * shaper.Kbit, shaper.Mbit, 255 * shaper.Mbit, 256 * shaper.Mbit,
			5 * shaper.Gbit, 40 * shaper.Gbit, 100 * shaper.Tbit} {
			apply(t, d, veth, shaper.Wish{Ingress: tree(t, shaper.Ingress, rate, kind), Egress: tree(t, shaper.Egress, rate, kind)})
		}
	})
	t.Run("reads_back_what_it_wrote", func(t *testing.T) {
		d, veth := vethIn(t)
		want := both(t, 10*shaper.Mbit, leaf(t, d))
		apply(t, d, veth, want)
		have := read(t, d, veth)
		byMinor := cmp.Transformer("byMinor", func(cs []shaper.Class) map[uint16]shaper.Class {
			out := map[uint16]shaper.Class{}
			for _, c := range cs {
				out[c.Minor] = c
			}
			return out
		})
		if diff := cmp.Diff(want.Ingress.Classes, have.Veth.Classes, byMinor); diff != "" {
			t.Errorf("classes on the veth (-want +kernel):\n%s", diff)
		}
		if diff := cmp.Diff(want.Egress.Classes, have.IFB.Classes, byMinor); diff != "" {
			t.Errorf("classes on the IFB (-want +kernel):\n%s", diff)
		}
		if !have.Redirect || have.Stranger {
			t.Errorf("redirect = %t, stranger = %t", have.Redirect, have.Stranger)
		}
	})
	t.Run("changes_a_rate_without_replacing_a_qdisc", func(t *testing.T) {
		d, veth := vethIn(t)
		kind := leaf(t, d)
		apply(t, d, veth, shaper.Wish{Ingress: tree(t, shaper.Ingress, 10*shaper.Mbit, kind), Egress: tree(t, shaper.Egress, shaper.Gbit, kind)})
		steps := apply(t, d, veth, shaper.Wish{Ingress: tree(t, shaper.Ingress, shaper.Gbit, kind), Egress: tree(t, shaper.Egress, 10*shaper.Mbit, kind)})
		for _, s := range steps {
			if s.Op != shaper.ChangeClass && s.Op != shaper.ChangeQueue {
				t.Errorf("not a change in place: %v", s)
			}
		}
	})
	t.Run("ends_where_it_should_whatever_the_path", func(t *testing.T) {
		d, veth := vethIn(t)
		kind := leaf(t, d)
		rates := []shaper.Rate{0, 64 * shaper.Kbit, 10 * shaper.Mbit, shaper.Gbit, 40 * shaper.Gbit}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 40 {
			apply(t, d, veth, shaper.Wish{
				Ingress: tree(t, shaper.Ingress, rates[rng.IntN(len(rates))], kind),
				Egress:  tree(t, shaper.Egress, rates[rng.IntN(len(rates))], kind),
			})
		}
		apply(t, d, veth, shaper.Wish{})
		have := read(t, d, veth)
		if have.Veth.Root.Major != 0 || have.IFB != nil || have.IngressQdisc {
			t.Errorf("without a limit the kernel still has %+v", have)
		}
	})
	t.Run("leaves_somebody_elses_qdisc_alone", func(t *testing.T) {
		d, veth := vethIn(t)
		kind := leaf(t, d)
		err := vish.QdiscAdd(&vish.Tbf{QdiscAttrs: vish.QdiscAttrs{LinkIndex: veth, Handle: vish.MakeHandle(7, 0),
			Parent: vish.HANDLE_ROOT}, Rate: 1e6, Limit: 1e5, Buffer: 1e5})
		if err != nil {
			t.Fatal(err)
		}
		if err := vish.QdiscAdd(&vish.Ingress{QdiscAttrs: vish.QdiscAttrs{LinkIndex: veth,
			Handle: vish.MakeHandle(0xffff, 0), Parent: vish.HANDLE_INGRESS}}); err != nil {
			t.Fatal(err)
		}
		want := shaper.Wish{Ingress: tree(t, shaper.Ingress, shaper.Mbit, kind), Egress: tree(t, shaper.Egress, shaper.Mbit, kind)}
		have := read(t, d, veth)
		if steps := shaper.Diff(have, want); len(steps) > 0 {
			t.Errorf("somebody else's qdiscs would be touched: %v", steps)
		}
		if in, out := shaper.Conflicts(have, want); !in || !out {
			t.Errorf("conflicts not seen: ingress %t, egress %t", in, out)
		}
		// Even when nobody looked first.
		err = d.Apply(veth, "outside", shaper.Diff(shaper.Endpoint{}, want))
		if err == nil {
			t.Error("a root qdisc was added over somebody else's")
		}
		if got := read(t, d, veth).Veth.Root; got.Kind != "tbf" || got.Major != 7 {
			t.Errorf("root qdisc is now %+v", got)
		}
	})
	t.Run("sweeps_what_has_no_veth", func(t *testing.T) {
		d, veth := vethIn(t)
		kind := leaf(t, d)
		apply(t, d, veth, shaper.Wish{Egress: tree(t, shaper.Egress, shaper.Mbit, kind)})
		stranger := &vish.Ifb{LinkAttrs: vish.NewLinkAttrs()}
		stranger.Name = "ngifb4711"
		if err := vish.LinkAdd(stranger); err != nil {
			t.Fatal(err)
		}
		if n, err := d.Sweep(func(v int) bool { return v == veth }); n != 0 || err != nil {
			t.Fatalf("swept %d of the living, %v", n, err)
		}
		if n, err := d.Sweep(func(int) bool { return false }); n != 1 || err != nil {
			t.Fatalf("swept %d, %v; want 1", n, err)
		}
		if _, err := vish.LinkByName("ngifb4711"); err != nil {
			t.Errorf("a device of the same name but not of netguard's group is gone: %v", err)
		}
	})
	t.Run("keeps_what_was_marked_and_is_wanted_again", func(t *testing.T) {
		d, veth := vethIn(t)
		apply(t, d, veth, shaper.Wish{Egress: tree(t, shaper.Egress, shaper.Mbit, leaf(t, d))})
		name := "ngifb" + strconv.Itoa(veth)
		link, err := vish.LinkByName(name)
		if err == nil {
			err = vish.LinkSetGroup(link, 0x4e48) // and then it was killed
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time something else would be deleted
			if n, err := d.Sweep(func(v int) bool { return v == veth }); n != 0 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
		}
		link, err = vish.LinkByName(name)
		if err != nil || link.Attrs().Group != 0x4e47 {
			t.Errorf("its group is %#x, %v", link.Attrs().Group, err)
		}
	})
	t.Run("gives_back_the_queue_length_whatever_is_limited", func(t *testing.T) {
		for _, had := range []int{0, 1000} {
			d, veth := vethIn(t)
			link, err := vish.LinkByIndex(veth)
			if err == nil {
				err = vish.LinkSetTxQLen(link, had)
			}
			if err != nil {
				t.Fatal(err)
			}
			one := both(t, shaper.Mbit, leaf(t, d))
			for _, path := range [][]shaper.Wish{{{Egress: one.Egress}}, {{Ingress: one.Ingress}}, {{Egress: one.Egress}, {Ingress: one.Ingress, Egress: one.Egress}, {Ingress: one.Ingress}},
				{{Ingress: one.Ingress}, {Ingress: one.Ingress, Egress: one.Egress}, {Egress: one.Egress}}} {
				for _, w := range append(path, shaper.Wish{}) {
					apply(t, d, veth, w)
				}
				if link, err = vish.LinkByIndex(veth); err != nil || link.Attrs().TxQLen != had {
					t.Errorf("it had %d and has %d, %v", had, link.Attrs().TxQLen, err)
				}
			}
		}
	})
}

func TestCleanup(t *testing.T) {
	d, veth := vethIn(t)
	before := read(t, d, veth)
	want := both(t, 10*shaper.Mbit, leaf(t, d))
	apply(t, d, veth, want)
	for range 2 {
		if err := d.Cleanup(); err != nil {
			t.Fatal(err)
		}
		if have := read(t, d, veth); !cmp.Equal(have, before) {
			t.Errorf("after clean-up: %+v, before: %+v", have, before)
		}
	}
}
