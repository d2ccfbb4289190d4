package desired

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/endpoint"
	"netguard/shaper"
)

// TestDrafts: what did not change is the same pointer, and what changed is as if it were
// worked out for the first time.
func TestDrafts(t *testing.T) {
	v, ports, fresh := crowd(20)
	bound, m, op, cfg := endpoint.NewBindings(), drafts{}, endpoint.Operator{}, &config.Config{}
	look := func() []*Endpoint {
		return m.desired(endpoint.Join(endpoint.Observation{View: v, Ports: ports, Fresh: fresh, Now: time.Now()}, bound), op, cfg, shaper.Hashed)
	}
	change := func(do func()) { // what was handed out does not change
		v.Networks = maps.Clone(v.Networks)
		do()
	}
	some := func() string { return v.Containers[rand.IntN(len(v.Containers))].ID }
	before := look()
	for _, step := range []struct {
		name  string
		do    func()
		other int // endpoints that are others
	}{
		{"nothing", func() {}, 0},
		{"a_label", func() {
			c := *v.Container(some())
			c.Labels = map[string]string{"netguard.egress.rate": "7mbit"}
			dockertest.Put(&v, c)
		}, 1},
		{"one_goes", func() { dockertest.Drop(&v, some()) }, 0},
		{"the_same_read_again", func() {
			for _, was := range v.Containers {
				c := *was
				c.Labels = maps.Clone(c.Labels)
				dockertest.Put(&v, c)
			}
		}, 0},
		{"a_second_network", func() {
			id := some()
			v.Networks["second"] = docker.Network{ID: "second", Name: "second", Driver: "bridge", Endpoints: []*docker.Attachment{{ID: id}}}
		}, 2},
	} {
		change(step.do)
		now := look()
		was := map[endpoint.Key]*Endpoint{}
		for _, d := range before {
			was[d.Key] = d
		}
		others := 0
		for i, d := range now {
			if was[d.Key] != d {
				others++
			}
			want := new(drafts).desired(pointers(endpointsOf(now)...), op, cfg, shaper.Hashed)[i]
			if diff := cmp.Diff(want.Limits, d.Limits); diff != "" || want.alone != d.alone || len(want.notes) != len(d.notes) {
				t.Errorf("%s: %s is not as if it were worked out for the first time:\n%s", step.name, d.Container.Name, diff)
			}
		}
		if others != step.other {
			t.Errorf("%s: %d endpoints are others, want %d", step.name, others, step.other)
		}
		before = now
	}
	if cfg = (&config.Config{AllowOptOut: true}); look()[0] == before[0] {
		t.Error("another configuration, and the same desire")
	}
	for _, op = range []endpoint.Operator{{AllowOptOut: true}, {Exclude: []string{"net*"}}, {Left: map[string]string{"br-0": "it holds an uplink"}}} {
		before = look()
		want := new(drafts).desired(pointers(endpointsOf(before)...), op, cfg, shaper.Hashed)[0]
		if before[0].Unmanaged != want.Unmanaged || (want.Unmanaged == "") != op.AllowOptOut {
			t.Errorf("%+v: it is unmanaged for %q, want %q", op, before[0].Unmanaged, want.Unmanaged)
		}
	}
}

func endpointsOf(endpoints []*Endpoint) []endpoint.Endpoint {
	out := make([]endpoint.Endpoint, len(endpoints))
	for i, d := range endpoints {
		out[i] = d.Endpoint
	}
	return out
}
