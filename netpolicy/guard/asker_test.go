package guard

import (
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestAsker: an answer that came too late is not taken for the next one's, and what asked
// in vain asks again.
func TestAsker(t *testing.T) {
	question := netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump}, Data: ifinfomsg(unix.AF_UNSPEC, 0)}
	for name, spoil := range map[string]func(*testing.T, *asker){
		"an_answer_is_left": func(t *testing.T, a *asker) {
			if _, err := a.conn.Send(question); err != nil {
				t.Fatal(err)
			}
		},
		"an_answer_stays_out": func(_ *testing.T, a *asker) { a.patience = -time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			r, err := openRtnl()
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			before, err := r.devices()
			if err != nil {
				t.Fatal(err)
			}
			spoil(t, r.asker)
			if _, err := r.devices(); err == nil {
				t.Fatal("the socket is not spoilt")
			}
			r.patience = patience
			for range 3 {
				after, err := r.devices()
				if err != nil || len(after) != len(before) {
					t.Errorf("%d devices, %v; before there were %d", len(after), err, len(before))
				}
			}
		})
	}
}
