package shaper

import (
	"fmt"
	"slices"
)

// Root is the qdisc at the root of a device, as the kernel has it.
type Root struct {
	Kind    string // "" or "noqueue" where there is none
	Major   uint16
	Default uint16 // minor of HTB's default class
}

// State is what one device holds, in the words of Tree.
type State struct {
	Root     Root
	Classes  []Class
	Queues   []Queue
	Classify bool // netguard's filter spreads packets over the classes
}

// Own tells whether the root qdisc is netguard's: HTB under netguard's handle.
func (s State) Own() bool { return s.Root.Kind == "htb" && s.Root.Major == RootMajor }

// Foreign tells whether somebody else put a qdisc there. The kernel's own
// default has no handle.
func (s State) Foreign() bool { return s.Root.Major != 0 && !s.Own() }

// Endpoint is what the kernel holds for one endpoint.
type Endpoint struct {
	Veth State // what the container receives: the root of the host veth
	// IFB is the device that the container's packets are led through, so that
	// they can be queued; nil where there is none.
	IFB *State
	// Redirect tells that the host veth's ingress leads to IFB.
	Redirect bool
	// IngressQdisc tells that the host veth has an ingress qdisc. Ours tells that a filter
	// of netguard's is in it (its IFB may be gone). Stranger tells that the qdisc, or a
	// filter in it, is foreign. Before tells that a foreign filter sees the packets before
	// netguard's: it may take them.
	IngressQdisc, Ours, Stranger, Before bool
}

// Device names a device of an endpoint.
type Device uint8

const (
	Veth Device = iota
	IFB
)

// Op is one kind of change to the kernel.
type Op uint8

const (
	AddIFB Op = iota
	DeleteIFB
	AddRoot
	DeleteRoot
	AddClass
	ChangeClass
	DeleteClass // and its queue with it
	AddQueue
	ChangeQueue
	ReplaceQueue
	AddClassifier
	AddIngress // the ingress qdisc on the veth
	DeleteIngress
	AddRedirect
	DeleteRedirect // netguard's filters at the ingress, and no other
)

// Step is one change. Class and Queue say what is added or changed.
type Step struct {
	Op      Op
	Device  Device
	Default uint16 // AddRoot
	Class   Class
	Queue   Queue
}

// StepError says which step failed.
type StepError struct {
	Step Step
	Err  error
}

func (e StepError) Error() string { return e.Step.String() + ": " + e.Err.Error() }
func (e StepError) Unwrap() error { return e.Err }

// Undone tells whether a step failed because somebody else removed what it builds on: the tree,
// the ingress qdisc or the IFB. have is what the kernel holds after the failure.
func (e StepError) Undone(have Endpoint) bool {
	tree := have.Veth
	if e.Step.Device == IFB {
		if have.IFB == nil {
			return true
		}
		tree = *have.IFB
	}
	switch e.Step.Op {
	case AddClass, ChangeClass, AddQueue, ChangeQueue, ReplaceQueue, AddClassifier:
		return !tree.Own()
	case AddRedirect:
		return !have.IngressQdisc || have.IFB == nil
	}
	return false
}

// Wish is what an endpoint should have; a nil tree means no limit.
type Wish struct {
	Ingress, Egress *Tree
}

// Diff gives the steps that lead from what the kernel has to what it should have. The redirect
// comes last, so that packets are led only to an IFB that is ready. What can be changed in place
// is changed in place. If both are the same, there is no step. A foreign qdisc gets no step
// either; Conflicts reports it. The redirect goes before its IFB: the kernel would lose each
// packet of the container. The ingress qdisc stays if foreign filters are in it.
func Diff(have Endpoint, want Wish) []Step {
	steps := device(Veth, have.Veth, want.Ingress)
	if want.Egress == nil {
		switch {
		case have.Stranger && have.Ours:
			steps = append(steps, Step{Op: DeleteRedirect})
		case !have.Stranger && have.IngressQdisc && (have.Ours || have.IFB != nil):
			steps = append(steps, Step{Op: DeleteIngress})
		}
		if have.IFB != nil {
			steps = append(steps, Step{Op: DeleteIFB})
		}
		return steps
	}
	if have.Stranger && !have.Ours {
		return steps
	}
	var ifb State
	if have.IFB == nil {
		steps = append(steps, Step{Op: AddIFB})
	} else {
		ifb = *have.IFB
	}
	steps = append(steps, device(IFB, ifb, want.Egress)...)
	if !have.IngressQdisc {
		steps = append(steps, Step{Op: AddIngress})
	}
	if !have.Redirect || have.IFB == nil {
		steps = append(steps, Step{Op: AddRedirect})
	}
	return steps
}

// Conflicts tells in which directions a foreign qdisc or filter is where netguard's should be. A
// foreign filter after netguard's is in nobody's way.
func Conflicts(have Endpoint, want Wish) (ingress, egress bool) {
	ingress = want.Ingress != nil && have.Veth.Foreign()
	egress = want.Egress != nil && (have.Stranger && (!have.Ours || have.Before) || have.IFB != nil && have.IFB.Foreign())
	return ingress, egress
}

func device(dev Device, have State, want *Tree) []Step {
	switch {
	case have.Foreign():
		return nil
	case want == nil && have.Own():
		return []Step{{Op: DeleteRoot, Device: dev}}
	case want == nil:
		return nil
	}
	var steps []Step
	if !have.Own() || !have.alike(want) {
		if have.Own() {
			steps = append(steps, Step{Op: DeleteRoot, Device: dev})
		}
		steps = append(steps, Step{Op: AddRoot, Device: dev, Default: want.Default})
		have = State{}
	}
	for _, c := range want.Classes {
		i := slices.IndexFunc(have.Classes, func(h Class) bool { return h.Minor == c.Minor })
		if i < 0 {
			steps = append(steps, Step{Op: AddClass, Device: dev, Class: c})
		} else if have.Classes[i] != c {
			steps = append(steps, Step{Op: ChangeClass, Device: dev, Class: c})
		}
	}
	for _, q := range want.Queues {
		i := slices.IndexFunc(have.Queues, func(h Queue) bool { return h.Class == q.Class })
		switch {
		case i < 0:
			steps = append(steps, Step{Op: AddQueue, Device: dev, Queue: q})
		case have.Queues[i].Kind != q.Kind:
			steps = append(steps, Step{Op: ReplaceQueue, Device: dev, Queue: q})
		case !have.Queues[i].same(q):
			steps = append(steps, Step{Op: ChangeQueue, Device: dev, Queue: q})
		}
	}
	if want.Classify && !have.Classify {
		steps = append(steps, Step{Op: AddClassifier, Device: dev})
	}
	return steps
}

// alike tells whether a tree can be changed into another in place. HTB's default class cannot be
// changed. A class that is not wanted would hold packets that no limit counts.
func (s State) alike(want *Tree) bool {
	if s.Root.Default != want.Default || s.Classify && !want.Classify {
		return false
	}
	for _, c := range s.Classes {
		i := want.class(c.Minor)
		if i < 0 && want.Classify && c.earlier() {
			continue
		}
		if i < 0 || want.Classes[i].Parent != c.Parent {
			return false
		}
	}
	return true
}

// same compares two queues by what the kernel shows again. CoDel keeps its times
// in units of 1.024 us.
func (q Queue) same(w Queue) bool {
	if q.Kind != w.Kind || q.Limit != w.Limit {
		return false
	}
	switch q.Kind {
	case "tbf":
		return q.Rate == w.Rate && q.Buffer == w.Buffer
	case "fq_codel":
		return near(q.Target, w.Target) && near(q.Interval, w.Interval)
	}
	return true
}

func near(a, b uint32) bool { return max(a, b)-min(a, b) <= 2 }

var opNames = map[Op]string{
	AddIFB: "add IFB", DeleteIFB: "delete IFB", AddRoot: "add root qdisc", DeleteRoot: "delete root qdisc",
	AddClass: "add class", ChangeClass: "change class", DeleteClass: "delete class", AddQueue: "add queue", ChangeQueue: "change queue",
	ReplaceQueue: "replace queue", AddClassifier: "add classifier", AddIngress: "add ingress qdisc",
	DeleteIngress: "delete ingress qdisc", AddRedirect: "add redirect",
	DeleteRedirect: "delete redirect",
}

// String names a step as a log line would.
func (s Step) String() string {
	at := "veth"
	if s.Device == IFB {
		at = "IFB"
	}
	switch s.Op {
	case AddClass, ChangeClass, DeleteClass:
		return fmt.Sprintf("%s %x:%x (%v) on %s", opNames[s.Op], RootMajor, s.Class.Minor, Rate(s.Class.Rate*8), at)
	case AddQueue, ChangeQueue, ReplaceQueue:
		return fmt.Sprintf("%s %s under %x:%x on %s", opNames[s.Op], s.Queue.Kind, RootMajor, s.Queue.Class, at)
	case AddRoot, DeleteRoot, AddClassifier:
		return opNames[s.Op] + " on " + at
	}
	return opNames[s.Op]
}
