package shaper

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestDecodeOfTooMany(t *testing.T) {
	labels := map[string]string{"netguard.egress.rate": "10mbit"}
	var on []string
	for i := range maxLabels - 1 {
		on = append(on, fmt.Sprintf("n%d", i))
		labels[fmt.Sprintf("netguard.network.n%d.egress.rate", i)] = "5mbit"
	}
	slices.Sort(on)
	if d := Decode(labels, "n7", on); len(d.Faults) > 0 || d.Rate[Egress] != 5*Mbit {
		t.Errorf("%+v", d)
	}
	labels["netguard.ingress.rate"] = "1mbit"
	d := Decode(labels, "n7", on)
	if len(d.Faults) != 1 || d.Faults[0].Rates != [2]bool{true, true} || d.Rate[Egress] != 0 || !strings.Contains(d.Faults[0].Error(), "1001 labels") {
		t.Errorf("%+v", d)
	}
}

// A label for one network is read on all of them: what is wrong with it, or that it
// is about nothing, nobody else would say.
func TestDecodeOfOtherNetworks(t *testing.T) {
	on := []string{"front", "shop_backend"}
	for label, c := range map[string]struct {
		value string
		fault string // that is said, "" if it has none
		rates [2]bool
		note  string
		rate  Rate
	}{
		"netguard.network.front.egress.rate":        {value: "5mbit", rate: 5 * Mbit},
		"netguard.network.shop_backend.egress.rate": {value: "5mbit", rate: 9 * Mbit},
		"netguard.network.backend.egress.rate":      {value: "5mbit", rate: 9 * Mbit, note: `on no network "backend" (did you mean shop_backend?)`},
		"netguard.network.Front.egress.rate":        {value: "5mbit", rate: 9 * Mbit, note: "did you mean front?"},
		"netguard.network.bakend.ingress.burst":     {value: "5KiB", rate: 9 * Mbit, note: "it is on front, shop_backend"},
		"netguard.network.bakend.egress.rate":       {value: "junk", rate: 9 * Mbit, fault: `netguard.network.bakend.egress.rate="junk"`},
		"netguard.network.bakend.egress.burst":      {value: "junk", rate: 9 * Mbit, fault: `netguard.network.bakend.egress.burst="junk"`},
		"netguard.network.bakend.egres.rate":        {value: "junk", rate: 9 * Mbit, fault: "there is no such label", rates: [2]bool{true, true}},
		"netguard.network.shop_backend.egres.rate":  {value: "5mbit", rate: 9 * Mbit, fault: "there is no such label", rates: [2]bool{true, true}},
		"netguard.network.egress.rate":              {value: "5mbit", rate: 9 * Mbit, fault: "write netguard.network.<name>.egress.rate for one network, or netguard.egress.rate for all", rates: [2]bool{true, true}},
		"netguard.network..ingress.burst":           {value: "5KiB", rate: 9 * Mbit, fault: "write netguard.network.<name>.ingress.burst", rates: [2]bool{true, true}},
		"netguard.network.rate":                     {value: "5mbit", rate: 9 * Mbit, fault: "there is no such label", rates: [2]bool{true, true}},
	} {
		t.Run(label, func(t *testing.T) {
			d := Decode(map[string]string{"netguard.egress.rate": "9mbit", label: c.value}, "front", on)
			if d.Rate[Egress] != c.rate {
				t.Errorf("egress %v, want %v", d.Rate[Egress], c.rate)
			}
			if len(d.Faults) > 1 || (len(d.Faults) == 1) != (c.fault != "") {
				t.Fatalf("faults %v", d.Faults)
			}
			if c.fault != "" && (!strings.Contains(d.Faults[0].Error(), c.fault) || !strings.Contains(d.Faults[0].Error(), label) || d.Faults[0].Rates != c.rates) {
				t.Errorf("fault %v, rates %v", d.Faults[0], d.Faults[0].Rates)
			}
			if len(d.Notes) > 1 || (len(d.Notes) == 1) != (c.note != "") || c.note != "" && !strings.Contains(d.Notes[0], c.note) {
				t.Errorf("notes %q", d.Notes)
			}
		})
	}
}

func TestDecodeNamesFewStrays(t *testing.T) {
	labels := map[string]string{}
	for i := range 2 * maxStrays {
		labels[fmt.Sprintf("netguard.network.n%d.egress.rate", i)] = "5mbit"
	}
	d := Decode(labels, "front", []string{"front"})
	if len(d.Faults) > 0 || len(d.Notes) != maxStrays+1 || !strings.Contains(d.Notes[maxStrays], fmt.Sprint(maxStrays, " more")) {
		t.Errorf("%+v", d)
	}
}

// A burst goes with the rate that there is, whoever gave it.
func TestBurstWithoutARateOfItsOwn(t *testing.T) {
	burst := Decode(map[string]string{"netguard.egress.burst": "64KiB"}, "front", []string{"front"})
	for name, c := range map[string]struct {
		op       Operator
		declared []Declaration
		want     Limit
		faults   int
		notes    int
	}{
		"the_default":         {op: Operator{Default: [2]Rate{0, 9 * Mbit}}, want: Limit{9 * Mbit, 64 * KiB, "default"}},
		"the_cap":             {op: Operator{Max: [2]Rate{0, 9 * Mbit}}, want: Limit{9 * Mbit, 64 * KiB, "max"}},
		"a_cap_that_is_small": {op: Operator{Max: [2]Rate{0, Mbit}}, want: Limit{Mbit, 0, "max"}, notes: 1},
		"another's":           {declared: []Declaration{{Rate: [2]Rate{0, Mbit}, Label: [2]string{"", "label"}}}, want: Limit{Mbit, 64 * KiB, "label"}},
		"none":                {faults: 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.op.Resolve(append(c.declared, burst)...)
			if got.Limit[Egress] != c.want || len(got.Faults) != c.faults || len(got.Notes) != c.notes {
				t.Errorf("%+v", got)
			}
			if c.faults > 0 && !strings.Contains(got.Faults[0].Error(), `netguard.egress.burst="64KiB": there is no rate for it: add netguard.egress.rate`) {
				t.Error(got.Faults[0])
			}
		})
	}
}
