package endpoint

import (
	"net"
	"testing"

	"netguard/agent/link"
)

func TestForeign(t *testing.T) {
	o := scene(map[string]net.HardwareAddr{"a": macA})
	boxes := map[string]Sandbox{"a": {NSID: 7}}
	for name, c := range map[string]struct {
		port *link.Port
		want bool
	}{
		"a_name_as_docker_gives":       {&link.Port{Name: "veth0a1b2c3", NSID: 3, PeerMAC: macB}, false},
		"one_digit_more":               {&link.Port{Name: "veth0a1b2c3d", NSID: 3, PeerMAC: macB}, true},
		"no_digits":                    {&link.Port{Name: "vethlan", NSID: 3, PeerMAC: macB}, true},
		"the_other_end_is_the_hosts":   {&link.Port{Name: "up0", NSID: -1}, true},
		"renamed_with_a_container_MAC": {&link.Port{Name: "up0", NSID: 3, PeerMAC: macA}, false},
		"renamed_in_its_namespace":     {&link.Port{Name: "up0", NSID: 7, PeerMAC: macB}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.port.MasterName = "br0"
			if got := Foreign(c.port, o.View, boxes); got != c.want {
				t.Errorf("foreign: %v", got)
			}
		})
	}
	t.Run("a_container_of_another_bridge_is_not_asked", func(t *testing.T) {
		if !Foreign(&link.Port{Name: "up0", MasterName: "br1", NSID: 3, PeerMAC: macA}, o.View, boxes) {
			t.Error("it is not foreign")
		}
	})
}
