package config

import (
	"strings"
	"testing"
)

func TestFragments(t *testing.T) {
	for text, want := range map[string]Fragments{"": FragmentsAuto, "guard: {storm: 5}": FragmentsAuto, "guard: {fragments: auto}": FragmentsAuto,
		"guard: {fragments: pass}": FragmentsPass, "guard: {fragments: refuse}": FragmentsRefuse} {
		c, err := Parse([]byte(text), "netguard.yaml")
		if err != nil || c.Fragments != want {
			t.Errorf("%q: %s, %v, want %s", text, c.Fragments, err, want)
		}
	}
	for _, text := range []string{"drop", "true", "Auto", "{}"} {
		_, err := Parse([]byte("guard: {fragments: "+text+"}"), "netguard.yaml")
		if err == nil || !strings.Contains(err.Error(), "fragments") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
