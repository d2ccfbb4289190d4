package endpoint

import (
	"net"
	"net/netip"
	"testing"

	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
)

// running is a scene with a at a port, joined.
func running(t *testing.T) (Observation, []*Endpoint) {
	t.Helper()
	o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA})
	dockertest.Attach(&o.View, "n", docker.Attachment{ID: "a", MAC: macA, IPv4: netip.MustParseAddr("198.18.0.2")})
	es := Join(o, NewBindings())
	if portOf(t, es, "a") != 1 {
		t.Fatalf("%+v", es)
	}
	return o, es
}

func TestHold(t *testing.T) {
	nothing := docker.View{}
	// without is what Docker says when it lists a no more, and some more.
	without := func(o Observation, more ...docker.Attachment) docker.View {
		v := docker.View{Networks: o.View.Networks}
		dockertest.Detach(&v, "n", "a")
		for _, a := range more {
			dockertest.Attach(&v, "n", a)
		}
		return v
	}
	t.Run("keeps_whose_port_is_there", func(t *testing.T) {
		o, last := running(t)
		for name, view := range map[string]docker.View{"nothing": nothing, "no_endpoint": without(o),
			"no_container": {Networks: o.View.Networks}} {
			v, held := Hold(view, o.View, last, o.Ports)
			if len(held) != 1 || held[0] != last[0].Key {
				t.Fatalf("%s: held %v", name, held)
			}
			bound := NewBindings()
			bound.ports[1] = last[0].Key
			again := o
			again.View = v
			es := Join(again, bound)
			if portOf(t, es, "a") != 1 || es[0].Attachment.IPv4 != last[0].Attachment.IPv4 || es[0].Network.Bridge != "br0" {
				t.Errorf("%s: %+v", name, es)
			}
		}
		if len(nothing.Networks) > 0 {
			t.Error("a view that was handed out changed")
		}
	})
	t.Run("keeps_those_in_its_namespace", func(t *testing.T) {
		o, last := running(t)
		last[0].Sharers = []docker.Container{{ID: "side", SandboxOf: "a", State: "running"}}
		v, _ := Hold(nothing, o.View, last, o.Ports)
		if v.Container("side").SandboxOf != "a" {
			t.Errorf("%+v", v.Containers)
		}
	})
	t.Run("holds_nothing_that_is_listed", func(t *testing.T) {
		o, last := running(t)
		if _, held := Hold(o.View, o.View, last, o.Ports); held != nil {
			t.Errorf("held %v", held)
		}
	})
	for name, c := range map[string]func(*Observation, *docker.View){
		"its_port_is_gone":              func(o *Observation, _ *docker.View) { o.Ports = nil },
		"its_port_is_at_another_bridge": func(o *Observation, _ *docker.View) { o.change(0, func(p *link.Port) { p.MasterName = "br1" }) },
		"its_port_left_the_container":   func(o *Observation, _ *docker.View) { o.change(0, func(p *link.Port) { p.NSID = -1 }) },
		"another_port_has_its_index":    func(o *Observation, _ *docker.View) { o.change(0, func(p *link.Port) { p.Seen = 2 }) },
		"its_bridge_is_another_network's": func(_ *Observation, v *docker.View) {
			*v = docker.View{Networks: map[string]docker.Network{"m": {ID: "m", Bridge: "br0"}}}
		},
		"its_address_is_another's": func(o *Observation, v *docker.View) {
			*v = without(*o, docker.Attachment{ID: "heir", MAC: macB, IPv4: netip.MustParseAddr("198.18.0.2")})
		},
		"its_MAC_is_another's": func(o *Observation, v *docker.View) {
			*v = without(*o, docker.Attachment{ID: "heir", MAC: macA})
		},
	} {
		t.Run("lets_go_when_"+name, func(t *testing.T) {
			o, last := running(t)
			view, was := without(o), o.View
			c(&o, &view)
			if _, held := Hold(view, was, last, o.Ports); held != nil {
				t.Errorf("held %v", held)
			}
		})
	}
}
