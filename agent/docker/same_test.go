package docker

import (
	"net/netip"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"netguard/internal/fieldtest"
)

// TestSame: whatever field of a container, network or attachment differs, the two are not
// the same. A field that Same forgets fails here.
func TestSame(t *testing.T) {
	fieldtest.Differs(t, (*Container).Same, map[string]any{
		"LocalAddrs": map[string][]netip.Addr{"n": {netip.MustParseAddr("fe80::1")}},
		"Labels":     map[string]string{"a": "b"}, "Inherited": map[string]bool{"a": true},
		"image": imageRef{imageKey: imageKey{id: "x"}, platform: &ocispec.Platform{}},
		"Ports": []Published{{HostPort: 1}}, "Networks": []string{"n"},
	})
	fieldtest.Differs(t, func(a, b *Network) bool { return a.Same(b) }, map[string]any{
		"Gateways": []netip.Addr{netip.MustParseAddr("192.0.2.1")}, "Reserved": []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		"Subnets": []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "Routed": [2]bool{true},
		"Endpoints": nil, // it does not count
	})
	fieldtest.Differs(t, (*Attachment).Same, map[string]any{"MAC": []byte{2}, "IPv4": netip.MustParseAddr("192.0.2.1"), "IPv6": netip.MustParseAddr("::1")})
	a, b := Container{Labels: map[string]string{"a": "b"}}, Container{Labels: map[string]string{"a": "b"}}
	if !a.Same(&b) {
		t.Error("equal labels in two maps differ")
	}
	b.Labels["a"] = "c"
	if a.Same(&b) {
		t.Error("other labels do not differ")
	}
}
