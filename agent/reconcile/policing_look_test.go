package reconcile

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

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

// TestNamesOfOthers: each program is noted once, and not any number of programs.
func TestNamesOfOthers(t *testing.T) {
	p := newPolicing(slog.New(slog.DiscardHandler), nil, nil, time.Now)
	for range 3 {
		p.soon([]string{"nft", "iptables"})
	}
	if !slices.Equal(p.by, []string{"nft", "iptables"}) {
		t.Errorf("noted: %v", p.by)
	}
	for i := range 1000 {
		p.soon([]string{fmt.Sprint("program", i)})
	}
	if len(p.by) != maxNames {
		t.Errorf("%d programs are noted", len(p.by))
	}
}
