package guard

import (
	"encoding/binary"
	"strings"
	"testing"
)

// reportOf is a report of IGMPv3 about n groups, from the first on.
func reportOf(first, n int) []byte {
	p := []byte{0x22, 0, 0, 0, 0, 0, 0, byte(n)}
	for i := first; i < first+n; i++ {
		p = append(p, 4, 0, 0, 0, 239, byte(i>>16), byte(i>>8), byte(i))
	}
	binary.BigEndian.PutUint16(p[2:], ^fold(p))
	return p
}

func fold(p []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// TestGroups: reports of more groups than a bridge has room for turn its snooping off
// for good, unless the guard bounds what each port joins.
func TestGroups(t *testing.T) {
	h := newHost(t, 3)
	a, honest, first := h.boxes[0], h.boxes[1], h.boxes[2]
	snooping := func() string {
		_, text, _ := strings.Cut(output(t, "ip", "-d", "link", "show", bridgeName), "mcast_snooping ")
		return text[:min(1, len(text))]
	}
	attack := func(a *box) {
		for n := 0; n < 6000; n += 100 {
			a.send(ether(group4(igmpv3), a.mac, 0x800, ip4(a.ip4, igmpv3, 2, reportOf(n, 100))))
		}
	}
	joined := func(b *box) int {
		return strings.Count(output(t, "bridge", "mdb", "show"), " port "+b.name+" grp 239.")
	}
	snoop := func() { run(t, "ip", "link", "set", bridgeName, "type", "bridge", "mcast_snooping", "1") }
	snoop()
	attack(first)
	if snooping() != "0" {
		t.Fatalf("without the guard the bridge tells groups as before, and %d are joined", joined(first))
	}
	run(t, "ip", "link", "del", first.name) // and with it what it has joined
	h.boxes = h.boxes[:2]
	h.await("room in the table", func() bool { return joined(first) == 0 })
	snoop()
	d := h.driver()
	if !d.features.Groups {
		t.Skip("this kernel does not bound what a port joins: Linux 6.3 is needed")
	}
	before := h.portsNow(d)
	h.apply(d, h.wish())
	attack(a)
	if n := joined(a); snooping() != "1" || n > maxGroups {
		t.Fatalf("the bridge's snooping is %s, and %d groups are joined", snooping(), n)
	}
	honest.send(ether(group4(igmpv3), honest.mac, 0x800, ip4(honest.ip4, igmpv3, 2, reportOf(1<<20, 10))))
	if n := joined(honest); n != 10 {
		t.Errorf("an honest container joined 10 groups and is in %d", n)
	}
	h.check(d.Cleanup())
	if after := h.portsNow(d); after != before {
		t.Errorf("the ports are not as before:\n%s\nbefore:\n%s", after, before)
	}
}

// portsNow are all settings of the ports.
func (h *host) portsNow(d *Driver) string {
	var out []string
	for _, b := range h.boxes {
		p, _, err := d.links.port(b.port)
		h.check(err)
		out = append(out, b.name+" "+p.settings.String())
	}
	return strings.Join(out, "\n")
}
