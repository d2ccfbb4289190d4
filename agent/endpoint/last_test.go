package endpoint

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
)

// TestJoinRemembers: whatever happens, a Join that knows the last one comes to the same as
// one that looks at everything, and what did not change is the same pointer.
func TestJoinRemembers(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 7))
		o := Observation{View: docker.View{Networks: map[string]docker.Network{}}, Fresh: map[string]uint64{}, Now: time.Unix(1e9, 0)}
		remembers, forgets := NewBindings(), NewBindings()
		var seen uint64
		for step := range 40 {
			event(r, &o, &seen)
			before := maps.Clone(index(remembers.last.all))
			got := Join(o, remembers)
			want := forgets.whole(o)
			if d := cmp.Diff(want, got, alike); d != "" {
				t.Fatalf("seed %d, step %d:\n%s", seed, step, d)
			}
			if d := cmp.Diff(forgets.ports, remembers.ports); d != "" {
				t.Fatalf("seed %d, step %d: bindings:\n%s", seed, step, d)
			}
			for key, e := range index(got) {
				if b := before[key]; b != nil && b != e && cmp.Equal(b, e, alike) {
					t.Fatalf("seed %d, step %d: %v did not change and is another pointer", seed, step, key)
				}
			}
		}
	}
}

// whole joins everything, without knowing what was joined last.
func (b Bindings) whole(o Observation) []*Endpoint {
	for seen, key := range b.ports {
		if !has(o.Ports, seen) || key != (Key{}) && o.View.Networks[key.Network].Attachment(key.Container) == nil {
			delete(b.ports, seen)
		}
	}
	b.clean(o)
	*b.last = last{}
	all := Join(o, b)
	for _, n := range b.last.networks {
		for _, p := range n.ports {
			if key := b.ports[p.Seen]; key.Network == n.ID {
				b.beside[key] = n.seen()
			}
		}
	}
	return all
}

// alike compares what endpoints are made of. The state of a container is that of some moment.
var alike = cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(docker.Network{}, "Endpoints"), cmpopts.IgnoreFields(docker.Container{}, "State"), cmpopts.IgnoreUnexported(docker.Container{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

func index(all []*Endpoint) map[Key]*Endpoint {
	out := map[Key]*Endpoint{}
	for _, e := range all {
		out[e.Key] = e
	}
	return out
}

// event changes something of what is observed, without changing what was handed out.
func event(r *rand.Rand, o *Observation, seen *uint64) {
	name := func(n int) string { return fmt.Sprint("x", r.IntN(n)) }
	mac := func() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(r.IntN(5))} }
	// Docker gives each container a MAC of its own.
	of := func(id string) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, id[1] - '0'} }
	o.View.Networks = maps.Clone(o.View.Networks)
	o.Ports = slices.Clone(o.Ports)
	network := func(id string) string {
		n := o.View.Networks[id]
		n.ID, n.Name, n.Driver, n.Bridge = id, id, "bridge", "br-"+id
		o.View.Networks[id] = n
		return id
	}
	switch r.IntN(11) {
	case 0, 1:
		id := name(4)
		dockertest.Put(&o.View, docker.Container{ID: id, Name: name(6), State: []string{"running", "exited"}[r.IntN(2)], Labels: map[string]string{Label: []string{"true", "false"}[r.IntN(2)]}, SandboxOf: []string{"", "", name(4)}[r.IntN(3)]})
	case 2:
		dockertest.Drop(&o.View, name(4))
	case 3, 4:
		kind := docker.KindContainer
		if r.IntN(5) == 0 {
			kind = docker.KindBuild
		}
		id := name(4)
		dockertest.Attach(&o.View, network(name(2)), docker.Attachment{ID: id, MAC: of(id), Kind: kind})
	case 5:
		dockertest.Detach(&o.View, network(name(2)), name(4))
	case 6:
		if r.IntN(3) == 0 {
			delete(o.View.Networks, name(2))
		}
	case 7, 8:
		*seen++
		o.Ports = append(o.Ports, &link.Port{Index: int(*seen), Seen: *seen, NSID: r.IntN(6) - 1, PeerMAC: mac(), MasterName: "br-" + name(2), Since: o.Now})
	case 9:
		if n := len(o.Ports); n > 0 && r.IntN(2) == 0 {
			o.Ports = slices.Delete(o.Ports, 0, 1)
		} else if n > 0 {
			o.change(r.IntN(n), func(p *link.Port) { p.PeerMAC = mac() })
		}
	default:
		if r.IntN(3) == 0 {
			o.Sandboxes = map[string]Sandbox{name(4): {NSID: r.IntN(5), Seen: *seen}}
		} else {
			o.Now = o.Now.Add(4 * time.Second)
		}
	}
	o.Fresh = maps.Clone(o.Fresh)
	for id := range o.View.Networks {
		if r.IntN(2) == 0 {
			o.Fresh[id] = *seen
		}
	}
}
