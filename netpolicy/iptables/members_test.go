package iptables

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"netguard/netpolicy"
)

// TestMembersOf: whatever the list before was, a list comes to the same members, sorted, each once.
func TestMembersOf(t *testing.T) {
	addrs := []string{"10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "169.254.0.9", "::ffff:169.254.0.9", "0.0.0.0", "fd00::1", "fd00::2", "fe80::1", "fe80::1%eth0", "::"}
	home := rapid.Custom(func(t *rapid.T) Home {
		return Home{netip.MustParseAddr(rapid.SampledFrom(addrs).Draw(t, "address")), rapid.SampledFrom([]string{"", "br-a", "br-b"}).Draw(t, "bridge")}
	})
	rapid.Check(t, func(t *rapid.T) {
		var was []Home
		var places, homed families
		for range 5 {
			is := rapid.SliceOfN(home, 0, 40).Draw(t, "homes")
			if rapid.Bool().Draw(t, "little changes") {
				i := rapid.IntRange(0, len(was)).Draw(t, "at")
				is = slices.Insert(slices.Clone(was), i, is[:min(2, len(is))]...)
				is = slices.Delete(is, i/2, i/2+min(2, len(is)-i/2))
			}
			places, homed = membersOf(was, is, places, Home.place), membersOf(was, is, homed, Home.address)
			was = is
			var want [2]families // homes, homed
			for _, h := range is {
				if a := h.Addr.Unmap().WithZone(""); h.Bridge != "" && !a.IsUnspecified() && !(a.Is6() && a.IsLinkLocalUnicast()) {
					m := netpolicy.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}
					want[1][index(a.Is6())] = append(want[1][index(a.Is6())], m)
					m.Bridge = h.Bridge
					want[0][index(a.Is6())] = append(want[0][index(a.Is6())], m)
				}
			}
			for k, got := range []families{places, homed} {
				for i, list := range want[k] {
					slices.SortFunc(list, netpolicy.CompareMembers)
					if !slices.Equal(got[i], slices.Compact(list)) {
						t.Fatalf("%v are %v", is, got[i])
					}
				}
			}
		}
	})
}
