package netpolicy

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	keys := []string{"networks", "limits", "socket", "metrics", "docker_host"}
	for word, want := range map[string]string{
		"network": "networks", "limts": "limits", "lmiits": "limits", "dockerhost": "docker_host", "Socket": "socket",
		"mode": "", "": "", "x": "", strings.Repeat("networks", 100): "",
	} {
		if got := Nearest(word, keys); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
