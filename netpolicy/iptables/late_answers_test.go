package iptables

import (
	"net/netip"
	"slices"
	"testing"
)

// TestLateAnswersEnd: the lists have an end, however many answers they find.
func TestLateAnswersEnd(t *testing.T) {
	a, c := addr("10.0.0.1"), addr("10.0.0.2")
	var l lateAnswers
	l.await(a, true)
	for n := 0; ; n++ {
		if n > 3*answerLists {
			t.Fatal("the lists have no end")
		}
		got := l.list(touched{})
		if n == 2 {
			l.await(c, false) // found by this list
		}
		if n > 2 && (got.addrs[a] || got.addrs[c]) { // a's server opens connections to c all the time
			l.await(a, false)
			l.await(c, false)
		}
		if l.over() {
			return
		}
	}
}

func TestLateAnswerNotes(t *testing.T) {
	begun := func(t *testing.T, l *lab) (d *Driver, s small) {
		t.Helper()
		d, s = open(t), policy("a", nil, []*node{l.b}, 80)
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		return d, s
	}
	list := func(t *testing.T, d *Driver, s small) CutReport {
		t.Helper()
		r, err := d.Cut(t.Context(), false, s.allows)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	forLabs(t, "another_list_drops_those_of_the_last", func(t *testing.T, l *lab) {
		d, s := begun(t, l)
		for range answerLists - 1 {
			if !list(t, d, s).Again {
				t.Fatal("there is no other list")
			}
		}
		client, server := udpSocket(t, l.a, 50010), udpSocket(t, l.b, 99)
		if !arrives(t, server, client) {
			t.Fatal("the server cannot open a connection in the first place")
		}
		if !list(t, d, s).Again || list(t, d, s).Again {
			t.Fatal("not one list follows")
		}
		if !arrives(t, server, client) {
			t.Error("the server cannot open a connection any more")
		}
	})
	forLabs(t, "a_list_without_a_reason_makes_none", func(t *testing.T, l *lab) {
		d, s := begun(t, l)
		for list(t, d, s).Again {
		}
		client, server := udpSocket(t, l.a, 50010), udpSocket(t, l.b, 99)
		for range 2 {
			if !arrives(t, server, client) {
				t.Fatal("what the server opens is refused")
			}
			if r := cut(t, d, s.allows); r.Again {
				t.Error("others follow")
			}
		}
	})
	forLabs(t, "a_clean-up_takes_them", func(t *testing.T, l *lab) {
		d, s := begun(t, l)
		if !arrives(t, udpSocket(t, l.b, 99), udpSocket(t, l.a, 50010)) {
			t.Fatal("the server cannot open a connection in the first place")
		}
		if list(t, d, s); len(d.late.notes) != 1 {
			t.Fatalf("%d notes", len(d.late.notes))
		}
		if err := d.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := d.cut(t.Context(), map[netip.Addr]bool{l.a.addrs[0]: true}, false, s.allows); err != nil {
			t.Errorf("connections do not end: %v", err)
		}
	})
	forLabs(t, "an_address_of_before_a_clean-up_is_none_of_a_container", func(t *testing.T, l *lab) {
		d, s := begun(t, l)
		w := s.wish()
		w.Containers = append(slices.Clone(w.Containers), addr("10.9.9.9"))
		apply(t, d, w)
		if err := d.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		apply(t, d, s.wish())
		if d.denied.has(addr("10.9.9.9")) {
			t.Error("it is one")
		}
	})
}
