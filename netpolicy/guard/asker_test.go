package guard

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/mdlayher/netlink"
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestAsker: an answer that came too late is not taken for the next one's, and what asked
// in vain asks again.
func TestAsker(t *testing.T) {
	h := newHost(t, 1)
	for i := range 60 { // more than fit in one piece of an answer
		h.check(vish.LinkAdd(&vish.Bridge{LinkAttrs: vish.LinkAttrs{Name: fmt.Sprint("br", i)}}))
	}
	list := netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump}, Data: ifinfomsg(unix.AF_UNSPEC, 0)}
	one := netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: ifinfomsg(unix.AF_UNSPEC, 1)}
	for name, c := range map[string]struct {
		spoil func(*testing.T, *asker)
		fails bool
	}{
		"answers_are_left": {spoil: func(t *testing.T, a *asker) {
			// The answer to the second question ends the exchange, and the list goes on.
			err := a.conn.Exchange([]netlink.Message{list, one}, func([]byte) error { return nil }, func(_ int, err error) { t.Fatal(err) })
			if err != nil {
				t.Fatal(err)
			}
		}},
		"no_answer_comes": {spoil: func(_ *testing.T, a *asker) { a.conn.Close() }, fails: true},
	} {
		h.run(t, name, func(t *testing.T) {
			r, err := openRtnl()
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			c.spoil(t, r.asker)
			for i := range 4 {
				answers, err := r.send(unix.RTM_GETLINK, 0, ifinfomsg(unix.AF_UNSPEC, h.bridge), nil)
				if i == 0 && c.fails {
					if err == nil {
						t.Fatal("the socket is not spoilt")
					}
				} else if err != nil || len(answers) != 1 || binary.NativeEndian.Uint32(answers[0][4:]) != uint32(h.bridge) {
					t.Errorf("%d answers, %v; want one of device %d", len(answers), err, h.bridge)
				}
			}
		})
	}
}
