package shaper

import (
	"fmt"
	"strings"
	"testing"
)

func TestDecodeOfTooMany(t *testing.T) {
	labels := map[string]string{"netguard.egress.rate": "10mbit"}
	for i := range maxLabels - 1 {
		labels[fmt.Sprintf("netguard.network.n%d.egress.rate", i)] = "5mbit"
	}
	if d := Decode(labels, "n7"); len(d.Faults) > 0 || d.Rate[Egress] != 5*Mbit {
		t.Errorf("%+v", d)
	}
	labels["netguard.ingress.rate"] = "1mbit"
	d := Decode(labels, "n7")
	if len(d.Faults) != 1 || d.Faults[0].Rates != [2]bool{true, true} || d.Rate[Egress] != 0 || !strings.Contains(d.Faults[0].Error(), "1001 labels") {
		t.Errorf("%+v", d)
	}
}
