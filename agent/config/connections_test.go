package config_test

import (
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/netpolicy/guard"
)

func TestConnections(t *testing.T) {
	for text, want := range map[string]uint32{"": guard.DefaultConnections, "guard: {storm: 5}": guard.DefaultConnections,
		"guard: {connections: 0}": 0, "guard: {connections: 500}": 500, "guard: {connections: 16777216}": guard.MaxConnections} {
		c, err := config.Parse([]byte(text), "f.yaml")
		if err != nil || c.Connections != want {
			t.Errorf("%q: %d, %v, want %d", text, c.Connections, err, want)
		}
	}
	for _, value := range []string{"-1", "16777217", "many", "1e3", "10k"} {
		_, err := config.Parse([]byte("guard:\n  connections: "+value+"\n"), "f.yaml")
		if err == nil || !strings.Contains(err.Error(), `f.yaml:2:16: guard.connections is "`+value+`"`) {
			t.Errorf("%q: %v", value, err)
		}
	}
}
