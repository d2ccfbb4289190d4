package link

import (
	"net/netip"
	"testing"
	"time"

	"netguard/internal/fieldtest"
)

// TestSame: whatever field of a port differs, the two are not the same.
func TestSame(t *testing.T) {
	fieldtest.Differs(t, (*Port).Same, map[string]any{"MAC": []byte{2}, "PeerMAC": []byte{2}, "Since": time.Unix(1, 0),
		"LinkLocals": []LinkLocal{{Addr: netip.IPv6Unspecified()}}})
}
