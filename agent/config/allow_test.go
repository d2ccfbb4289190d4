package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestGuardAllow(t *testing.T) {
	parse := func(text string) (Config, error) { return Parse([]byte(text), "netguard.yaml") }
	t.Run("takes_addresses_and_prefixes", func(t *testing.T) {
		c, err := parse("guard: {allow: [192.0.2.10, 198.51.100.0/24, '2001:db8::/64']}\n")
		want := []netip.Prefix{netip.MustParsePrefix("192.0.2.10/32"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/64")}
		if err != nil || !slices.Equal(c.Claims, want) {
			t.Errorf("%v, %v", c.Claims, err)
		}
	})
	for text, want := range map[string]string{
		"guard: {allow: [vip]}\n":              `guard.allow[0] has "vip": it is no address`,
		"guard:\n  allow:\n  - 192.0.2.1/24\n": "3:5: guard.allow[0] has \"192.0.2.1/24\", with bits beyond its length: write 192.0.2.0/24",
		"guard: {allow: ['::ffff:1.2.3.4']}\n": "it is no address",
		"guard: {allow: ['fe80::1%eth0']}\n":   "it is no address",
	} {
		t.Run("refuses_"+strings.Fields(text)[1], func(t *testing.T) {
			if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}
