package desired

import (
	"net/netip"
	"slices"
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/shaper"
)

// TestUnreadLabels: a container whose labels are not known is closed both ways, also with open
// admission. It alone is, and its addresses are still a container's.
func TestUnreadLabels(t *testing.T) {
	const why = "the labels of big are too large to read"
	on := func(id string, last byte, more ...docker.Container) endpoint.Endpoint {
		return endpoint.Endpoint{Key: endpoint.Key{Container: id, Network: "n"}, Network: docker.Network{ID: "n", Name: "n", Bridge: "br0", Driver: "bridge"},
			Container: docker.Container{ID: id, Name: id}, Port: &link.Port{MTU: 1500}, Sharers: more,
			Attachment: docker.Attachment{ID: id, MAC: []byte{2, 0, 0, 0, 0, last}, IPv4: netip.AddrFrom4([4]byte{172, 18, 0, last})}}
	}
	unread := docker.Container{ID: "sidecar", Name: "sidecar", Unread: why}
	before, big, after, shared := on("before", 2), on("big", 3), on("after", 4), on("shared", 5, unread)
	big.Container.Unread = why
	endpoints := desired(pointers(before, big, after, shared), &config.Config{}, shaper.Hashed)
	r := Rule(&netpolicy.Catalog{}, endpoints)
	for _, d := range endpoints {
		closed := d.Key.Container == "big" || d.Key.Container == "shared"
		want := []string(nil)
		if closed {
			want = []string{why}
		}
		if !slices.Equal(d.Wrong, want) || d.Unmanaged != "" {
			t.Errorf("%s: %q, %q", d.Key.Container, d.Wrong, d.Unmanaged)
		}
		if s := r.State(d.Key); !slices.Equal(s.Locked, want) || s.Isolated(netpolicy.Ingress) != closed || s.Isolated(netpolicy.Egress) != closed {
			t.Errorf("%s: %+v", d.Key.Container, s)
		}
		if !slices.Contains(r.Wish.Containers, d.Attachment.IPv4) {
			t.Errorf("%s is external", d.Key.Container)
		}
	}
}
