package link

import (
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestIgnore: nothing is heard of queues that a socket of this program changes, and all of
// those that others change.
func TestIgnore(t *testing.T) {
	h := newHost(t)
	// The table watches neither link, and hears of their queues alone.
	const lo = 1
	one := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: 1, Port: 4789}
	must(t, netlink.LinkAdd(one))
	socket, err := openSocket()
	must(t, err)
	t.Cleanup(socket.Close)
	id, err := socket.GetPid()
	must(t, err)
	h.table.Ignore(4711)
	h.table.Ignore(id)
	h.watch()
	others := func(index int) netlink.Qdisc {
		return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	}
	must(t, netlink.QdiscAdd(others(lo)))
	h.await("all that was until now", func() bool { return has(h.table.TakeHint(), lo) })

	add := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	add.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	add.AddData(&nl.TcMsg{Ifindex: int32(one.Index), Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS})
	add.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("ingress")))
	_, err = add.Execute(unix.NETLINK_ROUTE, 0)
	must(t, err)
	must(t, netlink.QdiscDel(others(lo)))
	heard := false
	h.await("what others delete", func() bool {
		hint := h.table.TakeHint()
		heard = heard || has(hint, one.Index)
		return has(hint, lo)
	})
	if heard {
		t.Error("it heard of its own")
	}
	must(t, netlink.QdiscDel(others(one.Index)))
	h.await("what others delete of its own", func() bool { return has(h.table.TakeHint(), one.Index) })
}
