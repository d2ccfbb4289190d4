package reconcile

import (
	"testing"

	"netguard/agent/desired"
	"netguard/agent/docker"
)

func TestCoveredNetworks(t *testing.T) {
	of := func(ids ...string) networks {
		v := docker.View{Networks: map[string]docker.Network{}}
		for _, id := range ids {
			v.Networks[id] = docker.Network{ID: id}
		}
		return networksIn(v)
	}
	p := &policing{ruling: &desired.Ruling{}}
	for _, c := range []struct {
		about string
		to    networks
		news  bool
	}{
		{"the first", of("a", "b"), true},
		{"the same", of("b", "a"), false},
		{"one is gone", of("b"), false},
		{"one is new", of("b", "c"), true},
	} {
		p.news = false
		if p.cover(c.to); p.news != c.news {
			t.Errorf("%s: somebody is told to look: %v", c.about, p.news)
		}
	}
	if got := p.state().covered; !got["b"] || !got["c"] || got["a"] {
		t.Errorf("covered: %v", got)
	}
}
