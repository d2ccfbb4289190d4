package config

import (
	"strings"
	"testing"

	"netguard/netpolicy/guard"
)

func TestFragmentRate(t *testing.T) {
	for text, want := range map[string]uint32{"": guard.DefaultFragmentRate, "guard: {fragment_rate: 0}": 0, "guard: {fragment_rate: 25000}": 25000} {
		c, err := Parse([]byte(text), "netguard.yaml")
		if err != nil || c.FragmentRate != want {
			t.Errorf("%q: %d, %v, want %d", text, c.FragmentRate, err, want)
		}
	}
	for _, text := range []string{"-1", "1048577", "many", "1.5", "{}"} {
		_, err := Parse([]byte("guard: {fragment_rate: "+text+"}"), "netguard.yaml")
		if err == nil || !strings.Contains(err.Error(), "fragment_rate") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

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
