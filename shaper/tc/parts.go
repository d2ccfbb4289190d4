package tc

import (
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TryParts tries each part of a limit by itself. It leaves them there, so call it only in a
// network namespace made for it.
func TryParts() (htb, ifb, ingress bool) {
	h, err := vish.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, false, false
	}
	defer h.Close()
	ifb = h.LinkAdd(&vish.Ifb{LinkAttrs: vish.LinkAttrs{Name: "ngdoctor"}}) == nil
	lo, err := h.LinkByName("lo")
	if err != nil {
		return false, ifb, false
	}
	index := lo.Attrs().Index
	htb = h.QdiscAdd(vish.NewHtb(vish.QdiscAttrs{LinkIndex: index, Handle: vish.MakeHandle(1, 0), Parent: vish.HANDLE_ROOT})) == nil
	ingress = h.QdiscAdd(&vish.Ingress{QdiscAttrs: vish.QdiscAttrs{LinkIndex: index, Parent: vish.HANDLE_INGRESS}}) == nil
	return htb, ifb, ingress
}
