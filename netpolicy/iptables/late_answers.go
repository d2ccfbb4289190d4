package iptables

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// lateAnswers makes later lists look for connections that the kernel enters because of late
// answers.
//
// When a bridge begins to hand over its frames, or the entry of an answer goes (see
// entry.answered), other answers may be on their way. If policy lets the server open connections
// to the client, such an answer makes the kernel enter one. This entry lets the client go on.
//
// So, until the next list, the connection of the entry is noted like one that was cut. The note
// refuses the answers that are on their way. This happens once for each connection, because a
// server that opened the connection itself loses packets by it. Later lists find what later
// answers enter.
type lateAnswers struct {
	// lists are how many more lists go over the connections of an address.
	lists map[netip.Addr]int
	noted map[tuple]bool // the entries
	notes map[element]bool
}

const (
	answerLists = 5
	maxNoted    = 4096 // bounds noted
)

// await makes the next lists go over an address. If the address has had its lists and anew is
// false, it waits until the other addresses have had theirs.
func (l *lateAnswers) await(a netip.Addr, anew bool) {
	if l.lists == nil {
		l.lists = map[netip.Addr]int{}
	}
	if _, is := l.lists[a]; anew || !is {
		l.lists[a] = answerLists
	}
}

// over tells whether no list is left: none for an address, and none that drops notes.
func (l *lateAnswers) over() bool {
	return len(l.notes) == 0 && l.searched()
}

// searched tells whether all addresses had their lists.
func (l *lateAnswers) searched() bool {
	for _, n := range l.lists {
		if n > 0 {
			return false
		}
	}
	return true
}

// list adds the addresses that await asked for to what a list is about.
func (l *lateAnswers) list(t touched) touched {
	if l.searched() {
		l.lists, l.noted = nil, nil
		return t
	}
	addrs := maps.Clone(t.addrs)
	if addrs == nil {
		addrs = map[netip.Addr]bool{}
	}
	for a, n := range l.lists {
		if n > 0 {
			addrs[a], l.lists[a] = true, n-1
		}
	}
	t.addrs = addrs
	return t
}

// first tells whether an entry of an answer has no note yet, and counts it as noted.
func (l *lateAnswers) first(e entry) bool {
	if !e.answer || l.noted[e.orig] || len(l.noted) >= maxNoted {
		return false
	}
	if l.noted == nil {
		l.noted = map[tuple]bool{}
	}
	l.noted[e.orig] = true
	return true
}

// noteAnswers gives the notes to make for the entries of answers. It leaves out notes that last
// longer: those of lasting, and those in the set. A list without a change gets none, so that
// nobody loses packets by it.
func (d *Driver) noteAnswers(list []entry, lasting [2][]element) (notes []element) {
	if d.listing.routine {
		return nil
	}
	list = slices.DeleteFunc(slices.Clone(list), func(e entry) bool { return !d.late.first(e) })
	if len(list) == 0 {
		return nil
	}
	last := map[element]bool{}
	for _, i := range d.families {
		for _, n := range lasting[i] {
			last[n] = true
		}
		there, err := d.sets.members(cutSet(i == 1, d.cutSeconds()).name)
		if err != nil {
			return nil // the list can do without these notes
		}
		for _, n := range there {
			last[n] = !d.late.notes[n]
		}
	}
	for _, e := range list {
		if n, ok := e.reversed().reopens(); ok && !last[n] {
			if d.late.notes == nil {
				d.late.notes = map[element]bool{}
			}
			d.late.notes[n] = true
			notes = append(notes, n)
		}
	}
	return notes
}

// dropNotes deletes the notes that the last list made for the entries of answers.
func (d *Driver) dropNotes() error {
	var notes [2][]element
	for n := range d.late.notes {
		i := index(n.second.Is6())
		notes[i] = append(notes[i], n)
	}
	for i, list := range notes {
		if len(list) == 0 {
			continue
		}
		err := d.sets.change(cutSet(i == 1, d.cutSeconds()), true, list)
		if err != nil && !errors.Is(err, unix.ENOENT) { // somebody destroyed the set
			return fmt.Errorf("delete notes of answers: %w", err)
		}
	}
	d.late.notes = nil
	return nil
}
