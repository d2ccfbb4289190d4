package reconcile

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"netguard/agent/link"
)

func TestRoutes(t *testing.T) {
	asked := 0
	fails := errors.New("no answer")
	r := routes{ask: func(a netip.Addr) (link.Route, error) {
		if asked++; asked == 1 {
			return link.Route{}, fails
		}
		return link.Route{Bits: 64, Links: []int{2}}, nil
	}, own: func() (map[netip.Addr]bool, error) {
		return map[netip.Addr]bool{netip.MustParseAddr("fd00:18::1"): true}, nil
	}, now: time.Now}
	if _, err := r.to(netip.MustParseAddr("fd00:18::1")); !errors.Is(err, fails) {
		t.Errorf("error %v", err)
	}
	for range 2 {
		if got, err := r.to(netip.MustParseAddr("fd00:18::1")); err != nil || !got.Own {
			t.Errorf("the host's own: %+v, %v", got, err)
		}
		if got, err := r.to(netip.MustParseAddr("fd00:18::2")); err != nil || got.Own {
			t.Errorf("another: %+v, %v", got, err)
		}
	}
	if asked != 3 {
		t.Errorf("it was asked %d times", asked)
	}
}
