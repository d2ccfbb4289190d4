package observe

import (
	"net"
	"testing"
	"time"

	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
)

var macA, macB = net.HardwareAddr{2, 66, 0, 0, 0, 1}, net.HardwareAddr{2, 66, 0, 0, 0, 2}

// knownNetwork is what is known when a network with one endpoint was read.
func knownNetwork(mac net.HardwareAddr) *Snapshot {
	known := &Snapshot{Complete: true, Fresh: map[string]uint64{"n": 5}}
	known.View.Networks = map[string]docker.Network{"n": {ID: "n", Bridge: "br0"}}
	if mac != nil {
		dockertest.Attach(&known.View, "n", docker.Attachment{ID: "a", MAC: mac})
	}
	return known
}

func TestUnmatched(t *testing.T) {
	start := time.Now()
	for name, c := range map[string]struct {
		mac  net.HardwareAddr // of the endpoint
		port *link.Port
		want bool
	}{
		"a_port_newer_than_the_view_has_its_network_read": {nil, &link.Port{MasterName: "br0", Seen: 6, NSID: -1}, true},
		"a_port_that_the_view_knew_does_not":              {nil, &link.Port{MasterName: "br0", Seen: 5, NSID: -1}, false},
		"a_port_of_somebody_else's_bridge_does_not":       {nil, &link.Port{MasterName: "virbr0", Seen: 6}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var s unmatched
			if h, next := s.look(knownNetwork(c.mac), []*link.Port{c.port}, start); h.Empty() == c.want || !next.IsZero() {
				t.Errorf("hint %+v, again at %v", h, next)
			}
		})
	}
	for name, c := range map[string]struct {
		mac   net.HardwareAddr
		ports []*link.Port
		asked bool
	}{
		"a_port_that_no_endpoint_fits":     {nil, []*link.Port{{MasterName: "br0", Seen: 5, NSID: 1, PeerMAC: macA}}, true},
		"an_endpoint_that_no_port_fits":    {macA, nil, true},
		"one_that_fits":                    {macA, []*link.Port{{MasterName: "br0", Seen: 5, NSID: 1, PeerMAC: macA}}, false},
		"one_each_that_do_not_fit":         {macB, []*link.Port{{MasterName: "br0", Seen: 5, NSID: 1, PeerMAC: macA}}, true},
		"a_port_that_has_not_moved_in_yet": {nil, []*link.Port{{MasterName: "br0", Seen: 5, NSID: -1, PeerMAC: macA}}, false},
	} {
		t.Run(name+"_has_its_network_read_again_and_again", func(t *testing.T) {
			var s unmatched
			times, now := 0, start
			for now.Before(start.Add(10 * time.Minute)) {
				h, next := s.look(knownNetwork(c.mac), c.ports, now)
				if !h.Empty() {
					times++
				}
				if next.IsZero() {
					break
				}
				if !next.After(now) {
					t.Fatalf("at %v there is something to do at %v", now, next)
				}
				now = next
			}
			if c.asked != (times > 0) || times > 40 {
				t.Errorf("read %d times in ten minutes", times)
			}
		})
	}
	t.Run("what_fits_now_is_forgotten", func(t *testing.T) {
		var s unmatched
		ports := []*link.Port{{MasterName: "br0", Seen: 5, NSID: 1, PeerMAC: macA}}
		s.look(knownNetwork(nil), ports, start)
		s.look(knownNetwork(macA), ports, start)
		if len(s.asked) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestUnknown(t *testing.T) {
	ports := []*link.Port{{Master: 7, MasterName: "br-new", Seen: 9}}
	known := knownNetwork(nil)
	if !unknown(*known, byBridge(ports)) {
		t.Error("a bridge that nobody knows is no reason to ask")
	}
	if known.others = others(known.View, ports); unknown(*known, byBridge(ports)) {
		t.Error("Docker is asked again about a bridge that is not Docker's")
	}
	if ports[0].Master = 8; !unknown(*known, byBridge(ports)) {
		t.Error("another bridge of that name is not asked about")
	}
	if ports[0].MasterName = "br0"; unknown(*known, byBridge(ports)) {
		t.Error("Docker is asked about a bridge that is known")
	}
	if unknown(Snapshot{}, byBridge(ports)) {
		t.Error("everything is to be read all the same")
	}
}
