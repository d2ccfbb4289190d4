package tc_test

import (
	"testing"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/shaper"
)

// TestHolds: the list of qdiscs alone shows whether trees stand, queues and all.
func TestHolds(t *testing.T) {
	for name, c := range map[string]struct {
		changed func(t *testing.T, veth, ifb int)
		differs bool // or another program's stands in the way
	}{
		"as_it_was_written":  {func(*testing.T, int, int) {}, false},
		"no_root_qdisc":      {func(t *testing.T, veth, _ int) { deleteQdisc(t, veth, vish.HANDLE_ROOT) }, true},
		"no_root_on_the_IFB": {func(t *testing.T, _, ifb int) { deleteQdisc(t, ifb, vish.HANDLE_ROOT) }, true},
		"no_ingress_qdisc":   {func(t *testing.T, veth, _ int) { deleteQdisc(t, veth, vish.HANDLE_INGRESS) }, true},
		"no_IFB": {func(t *testing.T, _, ifb int) {
			must(t, vish.LinkDel(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: ifb}}))
		}, true},
		"another_program's_root": {func(t *testing.T, veth, _ int) {
			deleteQdisc(t, veth, vish.HANDLE_ROOT)
			must(t, vish.QdiscAdd(&vish.Tbf{QdiscAttrs: vish.QdiscAttrs{LinkIndex: veth, Handle: vish.MakeHandle(7, 0), Parent: vish.HANDLE_ROOT},
				Rate: 1e6, Limit: 1e5, Buffer: 1e5}))
		}, true},
		"a_class_is_gone": {func(t *testing.T, veth, _ int) {
			classes, err := vish.ClassList(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: veth}}, 0)
			must(t, err)
			for _, c := range classes {
				if c.Attrs().Handle == vish.MakeHandle(shaper.RootMajor, shaper.FlowMinor) {
					must(t, vish.ClassDel(c))
					return
				}
			}
			t.Fatal("no class to delete")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			d, veth := vethIn(t)
			want := both(t, 10*shaper.Mbit, shaper.Hashed)
			apply(t, d, veth, want)
			s, err := d.Snapshot()
			must(t, err)
			c.changed(t, veth, s.IFB(veth))
			s, err = d.Snapshot()
			must(t, err)
			whole, err := s.Endpoint(veth)
			must(t, err)
			in, out := shaper.Conflicts(whole, want)
			if differs := len(shaper.Diff(whole, want)) > 0 || in || out; differs != c.differs {
				t.Errorf("%+v, conflicts %v and %v: want a difference: %v", shaper.Diff(whole, want), in, out, c.differs)
			}
			if s.Holds(veth, want) == c.differs {
				t.Errorf("it holds: %v", c.differs)
			}
		})
	}
}

// TestTraffic: a direction without a limit has the counts of its link.
func TestTraffic(t *testing.T) {
	d, veth := vethIn(t)
	apply(t, d, veth, shaper.Wish{Ingress: tree(t, shaper.Ingress, 10*shaper.Mbit, shaper.Hashed)})
	s, err := d.Snapshot()
	must(t, err)
	before, err := s.Counters(veth)
	must(t, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	frame := make([]byte, 100)
	for range 3 {
		must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: peerOf(t, veth)}))
	}
	s, err = d.Snapshot()
	must(t, err)
	after, err := s.Counters(veth)
	must(t, err)
	if n := after[shaper.Egress].Packets - before[shaper.Egress].Packets; n < 3 {
		t.Errorf("%d packets more of the container's, want 3", n)
	}
	if after[shaper.Ingress].Packets != 0 {
		t.Errorf("%+v: the limit counts of the tree are not what is given", after[shaper.Ingress])
	}
}

func peerOf(t *testing.T, veth int) int {
	t.Helper()
	l, err := vish.LinkByIndex(veth)
	must(t, err)
	return l.Attrs().ParentIndex
}

func deleteQdisc(t *testing.T, dev int, parent uint32) {
	t.Helper()
	list, err := vish.QdiscList(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: dev}})
	must(t, err)
	for _, q := range list {
		if q.Attrs().Parent == parent {
			must(t, vish.QdiscDel(q))
			return
		}
	}
	t.Fatal("no qdisc to delete")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
