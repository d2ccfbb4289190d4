package guard

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseAllow(t *testing.T) {
	for label, want := range map[string]Allow{
		"":          {},
		" , ":       {},
		"192.0.2.1": {Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}},
		"192.0.2.10,02:00:00:00:00:01": {Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/32")},
			MACs: []MAC{{2, 0, 0, 0, 0, 1}}},
		" fd00::/64 , 10.0.0.0/8": {Prefixes: []netip.Prefix{netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("10.0.0.0/8")}},
		"0.0.0.0/0,::/0":          {Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}},
	} {
		got, err := ParseAllow(label)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", label, err, diff)
		}
	}
	for label, want := range map[string]string{
		"db":                       `"db" is no address (192.0.2.10), prefix (192.0.2.0/28) or MAC (02:00:00:00:00:01)`,
		"192.0.2.1/24":             "write 192.0.2.0/24",
		"::ffff:192.0.2.1":         "write 192.0.2.1",
		"224.0.0.1":                "is multicast",
		"0.0.0.0":                  "is no address",
		"::":                       "is no address",
		"fe80::1%eth0":             "is no address",
		"01:00:5e:00:00:01":        "group address",
		"00:00:00:00:00:00":        "is no address",
		"02:00:00:00:00:00:00:01":  "is not an Ethernet address",
		"192.0.2.1,x,y":            `"y"`,
		strings.Repeat("::1,", 40): "at most 32",
		strings.Repeat("z", 5000):  strings.Repeat("z", 60) + `" is no`,
	} {
		got, err := ParseAllow(label)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("%.80q: error %v, want %q", label, err, want)
		}
		if len(got.MACs)+len(got.Prefixes) > 0 {
			t.Errorf("%.80q: got %v in spite of the error", label, got)
		}
	}
}

func FuzzParseAllow(f *testing.F) {
	for _, s := range []string{"192.0.2.10,02:00:00:00:00:01", "10.0.0.0/8, fd00::/8", "::ffff:1.2.3.4/96", "fe80::1%x", ",,", "0/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, label string) {
		a, err := ParseAllow(label)
		if err != nil {
			return
		}
		if len(a.MACs)+len(a.Prefixes) > MaxAllow {
			t.Fatalf("%d entries", len(a.MACs)+len(a.Prefixes))
		}
		// Whatever passed can be planned, and its elements do not overlap.
		p := aPort(10)
		p.Allow = a
		wide := widest(a.Prefixes)
		for i, x := range wide {
			for _, y := range wide[i+1:] {
				if x.Overlaps(y) {
					t.Fatalf("%s overlaps %s", x, y)
				}
			}
		}
		for e := range newPlan(Wish{Ports: []*Port{p}}, allFeatures, nil).sets[setNet6] {
			if len(e.key) != 20 || len(e.end) != 20 || e.key > e.end {
				t.Fatalf("element %x to %x", e.key, e.end)
			}
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add(portDefaults.recorded())
	f.Add("before: ")
	f.Add("before: learning group_fwd_mask=0xfffd")
	f.Add("before: nonsense")
	f.Fuzz(func(t *testing.T, comment string) {
		s, ok := parseRecord(comment)
		if !ok {
			return
		}
		if again, ok := parseRecord(s.recorded()); !ok || again != s {
			t.Fatalf("%q is read as %q, and that as %q", comment, s, again)
		}
	})
}

func FuzzParsePort(f *testing.F) {
	f.Add(ifinfomsg(unix.AF_BRIDGE, 3))
	f.Add(append(ifinfomsg(unix.AF_BRIDGE, 3), 8, 0, unix.IFLA_MASTER, 0, 1, 0, 0, 0, 12, 0, unix.IFLA_PROTINFO, 0x80, 5, 0, unix.IFLA_BRPORT_LOCKED, 0, 1, 0, 0, 0))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, p, ok, err := parsePort(data); ok && (err != nil || p.bridge == 0) {
			t.Fatalf("%+v, %v", p, err)
		}
	})
}

func FuzzParseNeighbour(f *testing.F) {
	entry := append(ndmsg(unix.AF_INET, 3, unix.NUD_PERMANENT, 0), 8, 0, unix.NDA_DST, 0, 10, 0, 0, 1, 5, 0, ndaProtocol, 0, neighbourProtocol, 0, 0, 0)
	f.Add(entry)
	f.Add(entry[:13])
	f.Fuzz(func(t *testing.T, data []byte) {
		got := map[Neighbour]MAC{}
		if err := parseNeighbour(data, got); err != nil && len(got) > 0 {
			t.Fatalf("%v and %v", got, err)
		}
	})
}

func FuzzParseElements(f *testing.F) {
	one := []byte{20, 0, 3, 0x80, 16, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 1, 2, 3, 4}
	f.Add(one)
	f.Add(one[:len(one)-1])
	f.Add([]byte{3, 0, 3, 0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		_ = parseElements(data, func(e dumped) {
			n++
			_, _ = e.portOf(), e.macOf()
		})
		if n > len(data) {
			t.Fatalf("%d elements in %d bytes", n, len(data))
		}
	})
}

func TestElements(t *testing.T) {
	t.Run("a_prefix_ends_where_it_should", func(t *testing.T) {
		for prefix, want := range map[string][2]string{
			"10.0.0.0/8":      {"10.0.0.0", "10.255.255.255"},
			"192.168.4.0/22":  {"192.168.4.0", "192.168.7.255"},
			"192.0.2.128/25":  {"192.0.2.128", "192.0.2.255"},
			"0.0.0.0/0":       {"0.0.0.0", "255.255.255.255"},
			"fd00:0:0:4::/62": {"fd00:0:0:4::", "fd00::7:ffff:ffff:ffff:ffff"},
		} {
			e := prefixElement(7, netip.MustParsePrefix(prefix))
			first, _ := netip.AddrFromSlice([]byte(e.key[4:]))
			last, _ := netip.AddrFromSlice([]byte(e.end[4:]))
			if got := [2]string{first.String(), last.String()}; got != want || binary.NativeEndian.Uint32([]byte(e.end)) != 7 {
				t.Errorf("%s: %v, want %v", prefix, got, want)
			}
		}
	})
	t.Run("a_MAC_gives_its_link_local_address", func(t *testing.T) {
		hw, _ := net.ParseMAC("02:42:ac:1e:00:02")
		if m, err := MACOf(hw); err != nil || m.LinkLocal().String() != "fe80::42:acff:fe1e:2" {
			t.Errorf("%s, %v", m.LinkLocal(), err)
		}
	})
}
