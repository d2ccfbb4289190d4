// Package tctest is a kernel that is not there, for tests: it keeps what Driver writes, and
// refuses what the kernel refuses.
package tctest

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"netguard/shaper"
	"netguard/shaper/tc"
)

// Kernel keeps links and what is at them. Its methods are those of tc.Driver.
type Kernel struct {
	links map[int]*link
	next  int
	// Fail is asked before each step; its error is the step's. Nil: none fails.
	Fail func(veth int, s shaper.Step) error
	// Keeps is the error of whoever deletes IFBs. Nil: they go.
	Keeps error
	// Reads and Writes count ports that were read and steps that were carried out.
	Reads, Writes int
}

// link is a veth, or the IFB of one.
type link struct {
	name   string
	serves int // of an IFB: the veth; -1 where it is somebody else's
	state  shaper.State
	// ingress is whether there is an ingress qdisc. foreign is whether the qdisc, or a filter
	// in it, is somebody else's. ours is whether a filter of netguard's is in it.
	ingress, foreign, redirect, ours bool
}

// New makes a kernel without links.
func New() *Kernel { return &Kernel{links: map[int]*link{}, next: 1} }

// Add adds a veth and gives its ifindex.
func (k *Kernel) Add(name string) int { return k.add(&link{name: name}) }

// AddIFB adds an IFB of somebody else's that has the name of the one of a veth.
func (k *Kernel) AddIFB(veth int) { k.add(&link{name: tc.IFBName(veth), serves: -1}) }

func (k *Kernel) add(l *link) int {
	k.next++
	k.links[k.next] = l
	return k.next
}

// Remove removes a link, and what is at it.
func (k *Kernel) Remove(index int) {
	if l := k.links[index]; l != nil && l.serves > 0 && k.links[l.serves] != nil {
		k.links[l.serves].redirect = false // its filter leads nowhere
	}
	delete(k.links, index)
}

// Gone tells whether a link is not there.
func (k *Kernel) Gone(index int) bool { return k.links[index] == nil }

// IFBs counts the IFBs of netguard's.
func (k *Kernel) IFBs() (n int) {
	for _, l := range k.links {
		if l.serves > 0 {
			n++
		}
	}
	return n
}

// SetRoot puts a qdisc of somebody else's at a link's root; none takes what is there away.
func (k *Kernel) SetRoot(index int, kind string, major uint16) {
	k.links[index].state = shaper.State{Root: shaper.Root{Kind: kind, Major: major}}
}

// SetIngress puts an ingress qdisc of somebody else's at a link, or takes the one there away.
func (k *Kernel) SetIngress(index int, there bool) {
	l := k.links[index]
	l.ingress, l.foreign, l.redirect, l.ours = there, there, false, false
}

// AddFilter puts a filter of somebody else's into a link's ingress qdisc, after netguard's.
func (k *Kernel) AddFilter(index int) error {
	l := k.links[index]
	if !l.ingress {
		return unix.EINVAL
	}
	l.foreign = true
	return nil
}

// Loses tells whether the kernel loses what arrives at a veth: netguard's filter leads it to a
// device that is gone.
func (k *Kernel) Loses(veth int) bool { return k.links[veth].ours && !k.links[veth].redirect }

// release takes away what leads to the IFB of a veth.
func (k *Kernel) release(veth int) error {
	var have shaper.Endpoint
	if l := k.links[veth]; l != nil {
		have.IngressQdisc, have.Ours, have.Stranger = l.ingress, l.ours, l.foreign
	}
	return k.Apply(veth, "", shaper.Diff(have, shaper.Wish{}))
}

// ifb gives the IFB of a veth, 0 where it has none.
func (k *Kernel) ifb(veth int) (index int) {
	for i, l := range k.links {
		if l.serves == veth && veth > 0 {
			index = i
		}
	}
	return index
}

func (k *Kernel) named(name string) bool {
	for _, l := range k.links {
		if l.name == name {
			return true
		}
	}
	return false
}

// Read is tc.Driver's.
func (k *Kernel) Read(veths []int) (map[int]tc.Port, error) {
	out := map[int]tc.Port{}
	for _, veth := range veths {
		k.Reads++
		var p tc.Port
		if l := k.links[veth]; l != nil {
			p.Veth = clone(l.state)
			p.IngressQdisc, p.Stranger, p.Redirect, p.Ours = l.ingress, l.foreign, l.redirect, l.ours
		}
		if p.IFBIndex = k.ifb(veth); p.IFBIndex != 0 {
			state := clone(k.links[p.IFBIndex].state)
			p.IFB = &state
		}
		out[veth] = p
	}
	return out, nil
}

func clone(s shaper.State) shaper.State {
	s.Classes, s.Queues = slices.Clone(s.Classes), slices.Clone(s.Queues)
	return s
}

// Drop is tc.Driver's.
func (k *Kernel) Drop(veths []int) error {
	if k.Keeps != nil && len(veths) > 0 {
		return k.Keeps
	}
	var faults []error
	for _, veth := range veths {
		if ifb := k.ifb(veth); ifb != 0 {
			if err := k.release(veth); err != nil {
				faults = append(faults, err)
				continue
			}
			k.Remove(ifb)
		}
	}
	return errors.Join(faults...)
}

// Sweep is tc.Driver's.
func (k *Kernel) Sweep(keep func(veth int) bool) (n int, err error) {
	if k.Keeps != nil {
		return 0, k.Keeps
	}
	var faults []error
	for i, l := range k.links {
		if l.serves > 0 && !keep(l.serves) {
			if err := k.release(l.serves); err != nil {
				faults = append(faults, err)
				continue
			}
			k.Remove(i)
			n++
		}
	}
	return n, errors.Join(faults...)
}

// Apply is tc.Driver's.
func (k *Kernel) Apply(veth int, _ string, steps []shaper.Step) error {
	for _, s := range steps {
		var err error
		if k.Fail != nil {
			err = k.Fail(veth, s)
		}
		if err == nil {
			err = k.step(veth, s)
		}
		if err != nil {
			return shaper.StepError{Step: s, Err: err}
		}
		k.Writes++
	}
	return nil
}

func (k *Kernel) step(veth int, s shaper.Step) error {
	l := k.links[veth]
	switch s.Op {
	case shaper.AddIFB:
		if k.named(tc.IFBName(veth)) {
			return unix.EEXIST
		}
		k.add(&link{name: tc.IFBName(veth), serves: veth})
		return nil
	case shaper.DeleteIFB:
		k.Remove(k.ifb(veth))
		return nil
	case shaper.DeleteIngress:
		if l != nil {
			l.ingress, l.foreign, l.redirect, l.ours = false, false, false, false
		}
		return nil
	case shaper.DeleteRedirect:
		if l != nil {
			l.redirect, l.ours = false, false
		}
		return nil
	}
	if s.Device == shaper.IFB {
		l = k.links[k.ifb(veth)]
	}
	if l == nil {
		return unix.ENODEV
	}
	switch s.Op {
	case shaper.AddIngress:
		if l.ingress {
			return tc.ErrOccupied
		}
		l.ingress = true
		return nil
	case shaper.AddRedirect:
		if !l.ingress {
			return unix.EINVAL
		}
		if k.ifb(veth) == 0 {
			return unix.ENODEV
		}
		l.redirect, l.ours = true, true
		return nil
	}
	return l.tree(s)
}
