package endpoint

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
)

var macA, macB = net.HardwareAddr{2, 66, 0, 0, 0, 1}, net.HardwareAddr{2, 66, 0, 0, 0, 2}

// scene is a bridge network "n" with the given containers attached, all running.
func scene(macs map[string]net.HardwareAddr, ports ...link.Port) Observation {
	v := docker.View{Networks: map[string]docker.Network{"n": {ID: "n", Name: "backend", Driver: "bridge", Bridge: "br0"}}}
	for id, mac := range macs {
		dockertest.Put(&v, docker.Container{ID: id, Name: id, State: "running"})
		dockertest.Attach(&v, "n", docker.Attachment{ID: id, MAC: mac})
	}
	o := Observation{View: v, Fresh: map[string]uint64{"n": 100}}
	for _, p := range ports {
		p.MasterName = "br0"
		o.Ports = append(o.Ports, &p)
	}
	return o
}

// change has a port be another one from now on. Those that were handed out stay as they are.
func (o *Observation) change(i int, change func(*link.Port)) {
	p := *o.Ports[i]
	change(&p)
	o.Ports = slices.Clone(o.Ports)
	o.Ports[i] = &p
}

func portOf(t *testing.T, es []*Endpoint, name string) uint64 {
	t.Helper()
	for _, e := range es {
		if e.Container.Name == name {
			if e.Port == nil {
				return 0
			}
			return e.Port.Seen
		}
	}
	t.Fatalf("no endpoint of %s in %v", name, es)
	return 0
}

func TestJoin(t *testing.T) {
	t.Run("finds_a_port_by_the_MAC_that_docker_declared", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA, "b": macB},
			link.Port{Seen: 7, NSID: 1, PeerMAC: macB}, link.Port{Seen: 8, NSID: 2, PeerMAC: macA})
		es := Join(o, NewBindings())
		if a, b := portOf(t, es, "a"), portOf(t, es, "b"); a != 8 || b != 7 {
			t.Errorf("a has port %d, b %d; want 8 and 7", a, b)
		}
	})
	t.Run("believes_no_MAC_of_a_container_that_ran_unwatched", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA, "b": macB},
			link.Port{Seen: 1, NSID: 1, PeerMAC: macB}, link.Port{Seen: 2, NSID: 2, PeerMAC: macA}) // they swapped
		o.Sandboxes = map[string]Sandbox{"a": {NSID: 1, Seen: 2}, "b": {NSID: 2, Seen: 2}}
		es := Join(o, NewBindings())
		if a, b := portOf(t, es, "a"), portOf(t, es, "b"); a != 1 || b != 2 {
			t.Errorf("a has port %d, b %d; want 1 and 2", a, b)
		}
	})
	t.Run("what_is_no_container_has_a_port_by_its_MAC_and_takes_none_that_is_proven", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA},
			link.Port{Seen: 7, NSID: 1, PeerMAC: macB}, link.Port{Seen: 8, NSID: 2, PeerMAC: macB}) // a has taken the step's MAC
		dockertest.Attach(&o.View, "n", docker.Attachment{ID: "step", MAC: macB, Kind: docker.KindBuild})
		o.Sandboxes = map[string]Sandbox{"a": {NSID: 1, Seen: 8}}
		bound := NewBindings()
		es := Join(o, bound)
		if a, step := portOf(t, es, "a"), portOf(t, es, "step"); a != 7 || step != 8 {
			t.Errorf("a has port %d, the step %d; want 7 and 8", a, step)
		}
		dockertest.Detach(&o.View, "n", "step")
		if _, held := Hold(o.View, docker.View{}, es, o.Ports); len(held) > 0 {
			t.Errorf("a step that is over is held: %v", held)
		}
		o.View.Networks["n"] = docker.Network{ID: "n", Driver: "overlay", Endpoints: []*docker.Attachment{{ID: "lb-x", MAC: macB, Kind: docker.KindUnknown}}}
		if es := Join(o, bound); len(es) != 0 {
			t.Errorf("an overlay's own has a row: %v", es)
		}
	})
	t.Run("waits_for_a_view_that_is_newer_than_the_port", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"dead": macA}, link.Port{Seen: 101, NSID: 1, PeerMAC: macA})
		if p := portOf(t, Join(o, NewBindings()), "dead"); p != 0 {
			t.Errorf("the dead container was given port %d of its address's heir", p)
		}
	})
	t.Run("keeps_a_binding_whatever_the_container_says_later", func(t *testing.T) {
		bound := NewBindings()
		o := scene(map[string]net.HardwareAddr{"a": macA, "b": macB}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA}, link.Port{Seen: 2, NSID: 2, PeerMAC: macB})
		Join(o, bound)
		o.change(0, func(p *link.Port) { p.PeerMAC = macB })
		o.change(1, func(p *link.Port) { p.PeerMAC = macA })
		es := Join(o, bound)
		if a, b := portOf(t, es, "a"), portOf(t, es, "b"); a != 1 || b != 2 {
			t.Errorf("a has port %d, b %d; want 1 and 2", a, b)
		}
	})
	t.Run("forgets_a_binding_with_its_port_or_its_attachment", func(t *testing.T) {
		bound := NewBindings()
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA})
		Join(o, bound)
		o.Ports = []*link.Port{{Seen: 2, NSID: 3, PeerMAC: macA, MasterName: "br0"}}
		if p := portOf(t, Join(o, bound), "a"); p != 2 {
			t.Errorf("after its restart a has port %d, want 2", p)
		}
		n := o.View.Networks["n"]
		n.Endpoints = nil // a view that was handed out does not change
		o.View.Networks = map[string]docker.Network{"n": n}
		if es := Join(o, bound); len(es) != 0 || len(bound.ports) != 0 {
			t.Errorf("a was disconnected; endpoints %v, bindings %v", es, bound)
		}
	})
	t.Run("takes_neither_of_two_ports_with_one_MAC", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA}, link.Port{Seen: 2, NSID: 2, PeerMAC: macA})
		if p := portOf(t, Join(o, NewBindings()), "a"); p != 0 {
			t.Errorf("a has port %d, want none", p)
		}
	})
	t.Run("asks_whose_a_port_is_that_others_say_to_be", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA}, link.Port{Seen: 2, NSID: 2, PeerMAC: macA})
		if es := Join(o, NewBindings()); !es[0].Contested {
			t.Error("nobody is asked")
		}
		o.Sandboxes = map[string]Sandbox{"a": {NSID: 2, Seen: 2}}
		if es := Join(o, NewBindings()); es[0].Contested || portOf(t, es, "a") != 2 {
			t.Errorf("a has port %d, want 2", portOf(t, es, "a"))
		}
		o.Sandboxes = map[string]Sandbox{"a": {NSID: 2, Seen: 1}} // of its last start
		if es := Join(o, NewBindings()); portOf(t, es, "a") != 2 {
			t.Errorf("a has port %d, want 2: the other one was asked for", portOf(t, es, "a"))
		}
	})
	liar := link.Port{Seen: 2, NSID: 2, PeerMAC: macA, Pinned: true, MasterName: "br0"}
	wait := func(t *testing.T, bound Bindings, o Observation) Observation {
		t.Helper()
		Join(o, bound)
		o.Ports = []*link.Port{&liar} // the view is as it was: Docker does not answer
		if p := portOf(t, Join(o, bound), "a"); p != 0 {
			t.Errorf("who has its MAC got its place when it went")
		}
		o.Ports = append(o.Ports, &link.Port{Seen: 3, NSID: 3, PeerMAC: macA, Pinned: true, MasterName: "br0"})
		if es := Join(o, bound); portOf(t, es, "a") != 3 || es[0].Contested {
			t.Errorf("when it started again it had port %d, want 3", portOf(t, es, "a"))
		}
		return o
	}
	t.Run("believes_no_MAC_of_who_had_it_beside_another", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA, Pinned: true})
		bound := NewBindings()
		Join(o, bound)
		o.Ports = append(o.Ports, &liar)
		wait(t, bound, o)
	})
	t.Run("believes_no_MAC_of_who_was_there_for_long_before", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"b": macB})
		old := liar
		old.Since = time.Unix(1000, 0)
		bound := NewBindings()
		o.Ports, o.Now = []*link.Port{&old}, old.Since.Add(unclaimed+time.Second)
		Join(o, bound)
		next := scene(map[string]net.HardwareAddr{"a": macA}, old)
		if es := Join(next, bound); portOf(t, es, "a") != 0 || !es[0].Contested {
			t.Error("who waited for it got its place")
		}
		wait(t, bound, next)
		next.Ports, next.Sandboxes = []*link.Port{&old}, map[string]Sandbox{"a": {NSID: 2, Seen: 2}}
		bound = NewBindings()
		Join(o, bound)
		if p := portOf(t, Join(next, bound), "a"); p != 2 {
			t.Errorf("a has port %d, though its namespace says 2", p)
		}
	})
	t.Run("believes_no_MAC_of_who_hides_with_its_link_down", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA, Pinned: true})
		bound := NewBindings()
		Join(o, bound)
		down := liar
		down.Pinned = false
		o.Ports = append(o.Ports, &down)
		wait(t, bound, o) // and up, when the other is gone
	})
	t.Run("lets_nobody_hide_with_its_link_down_until_another_MAC_is_free", func(t *testing.T) {
		down := link.Port{Seen: 2, NSID: 2, PeerMAC: macB, Since: time.Unix(1000, 0)}
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA, Pinned: true}, down)
		o.Now = down.Since.Add(unclaimed + time.Second)
		bound := NewBindings()
		Join(o, bound)
		wait(t, bound, o)
	})
	t.Run("gives_no_place_to_who_takes_its_MAC_after_it_went", func(t *testing.T) {
		down := link.Port{Seen: 2, NSID: 2, PeerMAC: macB}
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA, Pinned: true}, down)
		wait(t, NewBindings(), o)
	})
	t.Run("remembers_who_was_beside_it_while_it_is_stopped", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA, Pinned: true}, link.Port{Seen: 2, NSID: 2, PeerMAC: macB})
		bound := NewBindings()
		Join(o, bound)
		stopped := scene(nil, *o.Ports[1])
		dockertest.Put(&stopped.View, docker.Container{ID: "a", Name: "a", State: "exited"})
		Join(stopped, bound)
		o.Ports = []*link.Port{&liar, {Seen: 3, NSID: -1, MasterName: "br0"}} // a starts; its port is on the way
		if p := portOf(t, Join(o, bound), "a"); p != 0 {
			t.Errorf("a has port %d, which was beside its last one", p)
		}
		Join(Observation{}, bound)
		if len(bound.ports)+len(bound.beside) != 0 {
			t.Errorf("removed containers are remembered: %+v", bound)
		}
	})
	t.Run("believes_no_MAC_of_a_container_whose_port_was_proven", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macB, Pinned: true}, liar)
		o.change(1, func(p *link.Port) { p.MasterName = "br0" })
		o.Sandboxes = map[string]Sandbox{"a": {NSID: 1, Seen: 1}} // its port has a MAC that is not Docker's
		bound := NewBindings()
		bound.ports[1] = Key{"a", "n"}
		Join(o, bound)
		wait(t, bound, o)
	})
	t.Run("delays_nobody_whose_MAC_a_proven_port_claims", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macB, Pinned: true},
			link.Port{Seen: 2, NSID: 2, PeerMAC: macB, Pinned: true})
		bound := NewBindings()
		bound.ports[1] = Key{"a", "n"}
		Join(o, bound) // b's port is seen before Docker names b
		next := scene(map[string]net.HardwareAddr{"a": macA, "b": macB}, *o.Ports[0], *o.Ports[1])
		if p := portOf(t, Join(next, bound), "b"); p != 2 {
			t.Errorf("b has port %d, want 2", p)
		}
	})
	t.Run("waits_for_a_view_of_all_who_have_a_MAC", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA, Pinned: true},
			link.Port{Seen: 101, NSID: 2, PeerMAC: macA, Pinned: true})
		if es := Join(o, NewBindings()); portOf(t, es, "a") != 0 || !es[0].Contested {
			t.Errorf("a has port %d, though a newer one has its MAC too", portOf(t, es, "a"))
		}
		o.Ports = o.Ports[1:]
		if es := Join(o, NewBindings()); portOf(t, es, "a") != 0 || es[0].Contested {
			t.Error("a port is asked for that a newer view will tell")
		}
	})
	t.Run("takes_no_port_of_another_bridge", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA}, link.Port{Seen: 1, NSID: 1, PeerMAC: macA})
		o.change(0, func(p *link.Port) { p.MasterName = "virbr0" })
		if p := portOf(t, Join(o, NewBindings()), "a"); p != 0 {
			t.Errorf("a has port %d, want none", p)
		}
	})
	t.Run("says_why_it_leaves_an_endpoint_alone", func(t *testing.T) {
		for driver, word := range map[string]string{"host": "host's own", "null": "no network", "macvlan": "macvlan", "ipvlan": "ipvlan", "overlay": "overlay", "weave": `"weave"`} {
			o := scene(map[string]net.HardwareAddr{"a": macA})
			n := o.View.Networks["n"]
			n.Driver, n.Bridge = driver, ""
			o.View.Networks["n"] = n
			es := Join(o, NewBindings())
			if len(es) != 1 {
				t.Fatalf("driver %s: %v", driver, es)
			}
			if why, _ := (Operator{}).Unmanaged(es[0].Network, es[0].Container); !strings.Contains(why, word) || !Beyond(es[0].Network) {
				t.Errorf("driver %s: %q", driver, why)
			}
		}
		o := scene(map[string]net.HardwareAddr{"a": macA})
		e := Join(o, NewBindings())[0]
		if why, _ := (Operator{Exclude: []string{"back*"}}).Unmanaged(e.Network, e.Container); why == "" || Beyond(e.Network) {
			t.Error("an excluded network is managed")
		}
	})
	t.Run("lets_a_label_opt_out_only_where_the_operator_permits", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA})
		c := *o.View.Container("a")
		c.Labels = map[string]string{Label: "false"}
		dockertest.Put(&o.View, c)
		unmanaged := func(op Operator) (string, []string) {
			e := Join(o, NewBindings())[0]
			return op.Unmanaged(e.Network, e.Container)
		}
		if why, faults := unmanaged(Operator{}); why != "" || len(faults) != 1 {
			t.Errorf("without permission: unmanaged %q, faults %v", why, faults)
		}
		if why, faults := unmanaged(Operator{AllowOptOut: true}); why == "" || len(faults) != 0 {
			t.Errorf("with permission: unmanaged %q, faults %v", why, faults)
		}
		unread := c
		c.Inherited, unread.Unproven = map[string]bool{Label: true}, "the labels of its image cannot be read"
		for _, c := range []docker.Container{c, unread} {
			dockertest.Put(&o.View, c)
			if why, faults := unmanaged(Operator{AllowOptOut: true}); why != "" || len(faults) != 1 {
				t.Errorf("by a label that may be the image's: unmanaged %q, faults %v", why, faults)
			}
		}
	})
	t.Run("names_those_who_share_a_namespace_or_are_about_to", func(t *testing.T) {
		o := scene(map[string]net.HardwareAddr{"a": macA})
		dockertest.Put(&o.View, docker.Container{ID: "n", Name: "new", State: "created", SandboxOf: "a"})
		dockertest.Put(&o.View, docker.Container{ID: "s", Name: "sidecar", State: "running", SandboxOf: "a"})
		dockertest.Put(&o.View, docker.Container{ID: "x", Name: "stopped", State: "exited", SandboxOf: "a"})
		if e := Join(o, NewBindings())[0]; len(e.Sharers) != 2 || e.Sharers[0].Name != "new" || e.Sharers[1].Name != "sidecar" {
			t.Errorf("sharers %v", e.Sharers)
		}
	})
}
