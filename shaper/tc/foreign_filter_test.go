package tc_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	gotc "github.com/florianl/go-tc"
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/shaper"
	"netguard/shaper/tc"
)

const localExperiment = 0x88b5 // ETH_P_802_EX1

// arrival gives a function that sends a frame from the container's end and tells whether it
// arrives behind the filters of the veth. The socket is for one protocol: a socket for all of
// them would see the frame before the filters do.
func arrival(t *testing.T, veth int) func() bool {
	t.Helper()
	open := func(device int, protocol uint16) int {
		protocol = protocol<<8 | protocol>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: device, Protocol: protocol}))
		return fd
	}
	inside := peerOf(t, veth)
	from, to := open(inside, 0), open(veth, localExperiment)
	frame := []byte(strings.Repeat("\xff", 6) + strings.Repeat("\x02", 6) + strings.Repeat("\x00", 48))
	binary.BigEndian.PutUint16(frame[12:], localExperiment)
	return func() bool {
		must(t, unix.Sendto(from, frame, 0, &unix.SockaddrLinklayer{Ifindex: inside}))
		// A frame that is led through an IFB arrives later.
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(to), Events: unix.POLLIN}}, 5000)
		for errors.Is(err, unix.EINTR) {
			ready, err = unix.Poll([]unix.PollFd{{Fd: int32(to), Events: unix.POLLIN}}, 5000)
		}
		must(t, err)
		if ready == 0 {
			return false
		}
		_, _, err = unix.Recvfrom(to, make([]byte, 100), 0)
		must(t, err)
		return true
	}
}

// addFilter adds a foreign filter at the ingress of a veth, which counts packets and lets them pass.
func addFilter(t *testing.T, veth int) {
	t.Helper()
	must(t, vish.FilterAdd(&vish.U32{FilterAttrs: vish.FilterAttrs{LinkIndex: veth, Parent: vish.MakeHandle(0xffff, 0), Priority: 7, Protocol: unix.ETH_P_IP},
		ClassId: vish.MakeHandle(1, 1)}))
}

// filtersAt counts the filters at the ingress of a veth.
func filtersAt(t *testing.T, veth int) (all, foreign int) {
	t.Helper()
	list, err := vish.FilterList(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: veth}}, vish.MakeHandle(0xffff, 0))
	must(t, err)
	for _, f := range list {
		if u, ok := f.(*vish.U32); ok && u.ClassId == vish.MakeHandle(1, 1) {
			foreign++
		}
		if f.Type() == "bpf" && f.Attrs().Handle != 0 {
			all++
		}
	}
	return all + foreign, foreign
}

// TestForeignFilter: a limit ends beside a foreign filter in netguard's ingress qdisc. What the
// container sends arrives, and the foreign filter stays.
func TestForeignFilter(t *testing.T) {
	none := func(int) bool { return false }
	for name, end := range map[string]func(*testing.T, *tc.Driver, int){
		"cleanup":     func(t *testing.T, d *tc.Driver, _ int) { must(t, d.Cleanup()) },
		"no_limit":    func(t *testing.T, d *tc.Driver, veth int) { apply(t, d, veth, shaper.Wish{}) },
		"sweep_alone": func(t *testing.T, d *tc.Driver, _ int) { _, err := d.Sweep(none); must(t, err) },
		"drop_alone":  func(t *testing.T, d *tc.Driver, veth int) { must(t, d.Drop([]int{veth})) },
	} {
		for _, beside := range []bool{true, false} {
			if !beside {
				name += "_and_no_foreign_filter"
			}
			t.Run(name, func(t *testing.T) {
				d, veth := vethIn(t)
				apply(t, d, veth, shaper.Wish{Egress: tree(t, shaper.Egress, shaper.Mbit, shaper.Hashed)})
				want := 0
				if beside {
					addFilter(t, veth)
					want = 1
				}
				arrives := arrival(t, veth)
				if all, foreign := filtersAt(t, veth); !arrives() || all != want+1 || foreign != want {
					t.Fatalf("before: %d filters, %d foreign ones", all, foreign)
				}
				end(t, d, veth)
				if have := read(t, d, veth); have.IFB != nil || have.Ours || have.IngressQdisc != beside {
					t.Errorf("left is %+v", have)
				}
				if all, foreign := filtersAt(t, veth); all != want || foreign != want {
					t.Errorf("%d filters, %d foreign ones, want %d", all, foreign, want)
				}
				if !arrives() {
					t.Error("the kernel loses what the container sends")
				}
			})
		}
	}
}

// TestForeignFilterFirst: a foreign filter that sees packets before netguard's is in the way of a
// limit. One behind it is not.
func TestForeignFilterFirst(t *testing.T) {
	d, veth := vethIn(t)
	want := shaper.Wish{Egress: tree(t, shaper.Egress, shaper.Mbit, shaper.Hashed)}
	apply(t, d, veth, want)
	conflict := func() bool {
		t.Helper()
		_, out := shaper.Conflicts(read(t, d, veth), want)
		return out
	}
	addFilter(t, veth)
	if conflict() {
		t.Error("a filter behind netguard's is in the way")
	}
	other := shaper.Wish{Egress: tree(t, shaper.Egress, 2*shaper.Mbit, shaper.Hashed)}
	if len(apply(t, d, veth, other)) == 0 || len(apply(t, d, veth, want)) == 0 {
		t.Error("the rate was not changed beside the foreign filter")
	}
	write, err := gotc.Open(nil)
	must(t, err)
	defer write.Close()
	code, length, class := []byte{6, 0, 0, 0, 0, 0, 0, 0}, uint16(1), uint32(0x10001) // it matches nothing
	must(t, write.Filter().Add(&gotc.Object{Msg: gotc.Msg{Ifindex: uint32(veth), Parent: 0xffff0000, Handle: 1, Info: 1<<16 | 0x0300},
		Attribute: gotc.Attribute{Kind: "bpf", BPF: &gotc.Bpf{Ops: &code, OpsLen: &length, ClassID: &class}}}))
	if !conflict() {
		t.Error("a filter before netguard's is not in the way")
	}
	arrives := arrival(t, veth)
	must(t, d.Cleanup())
	if have := read(t, d, veth); have.IFB != nil || have.Ours || !have.Stranger || !arrives() {
		t.Errorf("left is %+v, and what the container sends may be lost", have)
	}
}
