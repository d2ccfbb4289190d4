package shaper_test

import (
	"maps"
	"strings"
	"testing"

	"netguard/shaper"
)

func TestParseRate(t *testing.T) {
	for in, want := range map[string]shaper.Rate{
		"50mbit": 50 * shaper.Mbit, "1.5Gbit": 1500 * shaper.Mbit, "64KBIT": 64 * shaper.Kbit,
		"100tbit": 100 * shaper.Tbit, "1MB/s": 8 * shaper.Mbit, "1KiB/s": 8192, "2000bit": 2 * shaper.Kbit,
	} {
		if got, err := shaper.ParseRate(in); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"": "empty", "10": "no unit", "10mbps": "bits a second to everybody else", "0mbit": "zero",
		"-1mbit": "negative", "101tbit": "above the greatest", "1bit": "below the least",
		"1e3mbit": "unknown unit", "1.2.3mbit": "not a decimal number", "1KB/s": "kB/s",
	} {
		if got, err := shaper.ParseRate(in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("ParseRate(%q) = %v, %v; want an error that says %q", in, got, err, says)
		}
	}
}

// What an error says is to be written can be written, and means what it says.
func TestParseRateSuggests(t *testing.T) {
	for in, want := range map[string]map[string]shaper.Rate{
		"10bps":    {},
		"500bps":   {"4kbit": 4 * shaper.Kbit}, // as bits it is below the least
		"2000bps":  {"2000bit": 2 * shaper.Kbit, "16kbit": 16 * shaper.Kbit},
		"10kbps":   {"10kbit": 10 * shaper.Kbit, "10kB/s": 80 * shaper.Kbit},
		"10Mbps":   {"10mbit": 10 * shaper.Mbit, "10MB/s": 80 * shaper.Mbit},
		"1.5gbps":  {"1.5gbit": 1500 * shaper.Mbit, "1.5GB/s": 12 * shaper.Gbit},
		"10tbps":   {"10tbit": 10 * shaper.Tbit, "80tbit": 80 * shaper.Tbit},
		"50tbps":   {"50tbit": 50 * shaper.Tbit},
		"101tbps":  {},
		"0.01tbps": {"0.01tbit": 10 * shaper.Gbit, "80gbit": 80 * shaper.Gbit},
	} {
		_, err := shaper.ParseRate(in)
		if err == nil {
			t.Errorf("%s can be read", in)
			continue
		}
		_, said, _ := strings.Cut(err.Error(), "everybody else: ")
		got := map[string]shaper.Rate{}
		for word := range strings.FieldsSeq(said) {
			if strings.HasPrefix(said, "write ") && word[0] >= '0' && word[0] <= '9' {
				rate, err := shaper.ParseRate(word)
				if err != nil {
					t.Errorf("%s: %s: %v", in, said, err)
				}
				got[word] = rate
			}
		}
		if !maps.Equal(got, want) || len(want) == 0 && said != "either way it is not between 1kbit and 100tbit" {
			t.Errorf("%s: %s", in, said)
		}
	}
	for in, want := range map[string]string{
		"10": "10mbit 10kbit 10MB/s", "10KB/s": "kB/s kbit", "10KB": "kB/s kbit", "10mb/s": "MB/s mbit", "10MB": "MB/s mbit", "10gb/s": "GB/s gbit",
		"10kib/s": "KiB/s kbit", "10MIB": "MiB/s mbit", "10Gib": "GiB/s gbit",
	} {
		_, err := shaper.ParseRate(in)
		for word := range strings.FieldsSeq(want) {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not say %s", in, err, word)
			}
			if _, err := shaper.ParseRate("10" + strings.TrimPrefix(word, "10")); err != nil {
				t.Errorf("%s: %v", in, err)
			}
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"50mbit", "1.5gbit", "1KiB/s", "", "-1", "0.0000001tbit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := shaper.ParseRate(s)
		if err != nil {
			return
		}
		if r < shaper.MinRate || r > shaper.MaxRate {
			t.Fatalf("ParseRate(%q) = %d is out of bounds", s, r)
		}
		if again, err := shaper.ParseRate(r.String()); err != nil || again != r {
			t.Fatalf("%q reads as %d, is written %q, and reads again as %d, %v", s, r, r, again, err)
		}
	})
}

func TestParseSize(t *testing.T) {
	if got, err := shaper.ParseSize("256KiB"); err != nil || got != 256*shaper.KiB {
		t.Errorf("256KiB = %d, %v", got, err)
	}
	for _, in := range []string{"", "0kB", "5GiB", "256", "256KB", "-1kB", "256kbit"} {
		if got, err := shaper.ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestResolve(t *testing.T) {
	decode := func(kv ...string) shaper.Declaration {
		labels := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			labels[kv[i]] = kv[i+1]
		}
		return shaper.Decode(labels, "backend", []string{"backend"})
	}
	const egress = "netguard.egress.rate"
	for name, c := range map[string]struct {
		op       shaper.Operator
		declared []shaper.Declaration
		want     shaper.Rate
	}{
		"nothing_declared_is_unlimited":       {want: 0},
		"a_label_counts":                      {declared: []shaper.Declaration{decode(egress, "5mbit")}, want: 5 * shaper.Mbit},
		"a_wrong_label_falls_to_one_megabit":  {declared: []shaper.Declaration{decode(egress, "5mbps")}, want: shaper.Mbit},
		"a_wrong_label_falls_to_the_default":  {op: shaper.Operator{Default: [2]shaper.Rate{0, 3 * shaper.Mbit}}, declared: []shaper.Declaration{decode(egress, "x")}, want: 3 * shaper.Mbit},
		"a_cap_holds_without_a_label":         {op: shaper.Operator{Max: [2]shaper.Rate{0, 3 * shaper.Mbit}}, declared: []shaper.Declaration{decode()}, want: 3 * shaper.Mbit},
		"a_label_cannot_exceed_the_cap":       {op: shaper.Operator{Max: [2]shaper.Rate{0, 3 * shaper.Mbit}}, declared: []shaper.Declaration{decode(egress, "5mbit")}, want: 3 * shaper.Mbit},
		"a_network_of_its_own_wins":           {declared: []shaper.Declaration{decode(egress, "5mbit", "netguard.network.backend.egress.rate", "7mbit")}, want: 7 * shaper.Mbit},
		"another_network_does_not_count":      {declared: []shaper.Declaration{decode(egress, "5mbit", "netguard.network.other.egress.rate", "7mbit")}, want: 5 * shaper.Mbit},
		"the_lowest_of_those_that_share_wins": {declared: []shaper.Declaration{decode(egress, "5mbit"), decode(egress, "2mbit"), decode()}, want: 2 * shaper.Mbit},
		"a_typing_error_fails_closed":         {declared: []shaper.Declaration{decode("netguard.egres.rate", "5mbit")}, want: shaper.Mbit},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.op.Resolve(c.declared...).Limit[shaper.Egress].Rate; got != c.want {
				t.Errorf("egress = %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"256KiB", "1.5MB", "", "-1kB", "4095MiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if size, err := shaper.ParseSize(s); err == nil && (size == 0 || size > shaper.MaxSize) {
			t.Fatalf("ParseSize(%q) = %d is out of bounds", s, size)
		}
	})
}

// Whatever a label says, a declaration has a rate or none, and a fault that tells
// where it is.
func FuzzDecode(f *testing.F) {
	f.Add("netguard.egress.rate", "5mbit", "netguard.network.a.b.egress.rate", "7mbit", "a.b")
	f.Add("netguard.network..rate", "", "netguard.ingress.burst", "1kB", "")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, network string) {
		labels := map[string]string{k1: v1, k2: v2}
		d := shaper.Decode(labels, network, []string{network})
		for _, note := range d.Notes {
			if len(note) > 2048 {
				t.Fatalf("%q from %q", note, labels)
			}
		}
		for _, fault := range d.Faults {
			if _, ok := labels[fault.Label]; !ok || !shaper.Claims(fault.Label) || len(fault.Error()) > 2048 {
				t.Fatalf("%+v from %q", fault, labels)
			}
		}
		for _, dir := range shaper.Directions {
			if d.Rate[dir] != 0 && labels[d.Label[dir]] == "" {
				t.Fatalf("%v has a rate from no label: %+v", dir, d)
			}
			for _, lim := range (shaper.Operator{Max: [2]shaper.Rate{shaper.Mbit, shaper.Mbit}}).Resolve(d).Limit {
				if lim.Rate == 0 || lim.Rate > shaper.Mbit {
					t.Fatalf("a cap does not hold: %+v", lim)
				}
				for _, leaf := range []shaper.Leaf{shaper.Hashed, shaper.SFQ, shaper.FQCodel} {
					if _, err := shaper.Build(lim, dir, 1500, leaf); err != nil && lim.Burst == 0 {
						t.Fatalf("%+v on %s: %v", lim, leaf, err)
					}
				}
			}
		}
	})
}
