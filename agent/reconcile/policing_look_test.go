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

// TestGlanceBesideWhatIsLeft: members that somebody deletes are back as soon as ever, though what
// was before cannot be taken away.
func TestGlanceBesideWhatIsLeft(t *testing.T) {
	w := newWorld(t)
	w.policies(1)
	w.come("front", service(1))
	w.run(2 * time.Second)
	w.fails = func(at string, _ int) error {
		if at == "rules remove" {
			return errInjected
		}
		return nil
	}
	w.policies(2)
	w.run(30 * time.Second) // tries are far apart then
	for range 5 {
		if _, met := w.rules.InForce(); !met || !w.loop.policing.late {
			t.Fatalf("in force: %t; late: %t", met, w.loop.policing.late)
		}
		w.rules.EmptySets()
		w.run(glanceEvery + 500*time.Millisecond)
	}
	w.settle(30 * time.Second)
	w.check()
}
