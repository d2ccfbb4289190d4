package guard

import (
	"fmt"
	"strings"
	"testing"
)

// TestNotices: what others do in tables of their own is no reason to read netguard's; what
// they do in netguard's is seen, whatever else they do beside it.
func TestNotices(t *testing.T) {
	h := newHost(t, 2)
	d, w := h.driver(), h.wish()
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName}}
	h.apply(d, w)
	if d.notices == nil {
		t.Fatal("the kernel's messages about nftables cannot be had")
	}
	took := func(ip string, index int) string {
		return fmt.Sprintf("delete element bridge netguard v4 { %q . %s . %s }; ", h.boxes[index].name, h.boxes[index].mac, ip)
	}
	var many strings.Builder
	many.WriteString("add table ip theirs; add set ip theirs much { type ipv4_addr; }; ")
	for i := range 3000 {
		fmt.Fprintf(&many, "add element ip theirs much { 10.1.%d.%d }; ", i/256, i%256)
	}
	own := took(h.boxes[0].ip4.String(), 0)
	for _, c := range []struct {
		name   string
		does   []string
		buffer int
		ours   bool // something of netguard's is changed
		read   bool // and so the table is to be read
	}{
		{name: "nothing"},
		{name: "tables_of_others", does: []string{foreign, "delete table bridge theirs", "add table inet filter; delete table inet filter"}},
		{name: "a_table_of_its_name_of_another_family", does: []string{"add table ip netguard", "delete table ip netguard"}},
		{name: "many_rules_of_others", does: []string{many.String(), "delete table ip theirs"}},
		{name: "its_own_table", does: []string{own}, ours: true, read: true},
		{name: "its_own_among_others", does: []string{foreign, own, "delete table bridge theirs"}, ours: true, read: true},
		{name: "in_one_transaction", does: []string{foreign + "; " + own + "delete table bridge theirs"}, ours: true, read: true},
		{name: "messages_are_lost", does: []string{many.String(), own, "delete table ip theirs"}, buffer: 4096, ours: true, read: true},
		{name: "messages_are_lost_and_nothing_is_changed", does: []string{many.String(), "delete table ip theirs"}, buffer: 4096, read: true},
		{name: "and_then_they_come_again", does: []string{foreign, "delete table bridge theirs"}, buffer: noticeBuffer},
		{name: "the_table_of_limits", does: []string{"flush set inet netguard bridges"}, ours: true, read: true},
	} {
		h.run(t, c.name, func(t *testing.T) {
			if c.buffer != 0 {
				h.check(d.notices.conn.SetReadBuffer(c.buffer))
				run(t, "nft", "add table ip theirs") // the first word after a loss may be lost as well
				h.apply(d, w)
				_, err := d.Apply(w, Look{})
				h.check(err)
			}
			was := d.kernel.table
			for _, nft := range c.does {
				run(t, "nft", nft)
			}
			r, err := d.Apply(w, Look{})
			h.check(err)
			if read := d.kernel.table != was; read != c.read {
				t.Errorf("the tables were read: %v", read)
			}
			if drift := len(r.Drift) > 0; drift != c.ours {
				t.Errorf("drift: %q", r.Drift)
			}
			h.apply(d, w)
		})
	}
	h.run(t, "just_before_its_own_transaction", func(t *testing.T) {
		elements := map[string]elements{setQuarantined: {element{key: portKey(h.boxes[1].port)}: ""}}
		run(t, "nft", own)
		was := d.kernel.table
		h.check(d.commit(change{add: elements}))
		if d.kernel.table == was {
			t.Error("the table was not read")
		}
		if _, ok := d.kernel.table.sets[setQuarantined][element{key: portKey(h.boxes[1].port)}]; !ok || d.kernel.table.admits(w.Ports[0]) {
			t.Error("one of both is not known of")
		}
		was = d.kernel.table
		run(t, "nft", foreign)
		h.check(d.commit(change{del: elements}))
		if d.kernel.table != was {
			t.Error("the table was read")
		}
	})
}
