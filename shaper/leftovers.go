package shaper

import "slices"

// class gives the place of a class in a tree, -1 where it has none.
func (t *Tree) class(minor uint16) int {
	return slices.IndexFunc(t.Classes, func(c Class) bool { return c.Minor == minor })
}

// earlier tells whether a class may come from an earlier version, which had more classes. The
// filter of this version sends no packet to it, and its parents limit what still waits in it.
func (c Class) earlier() bool {
	return c.Parent == RootMinor && c.Minor-FlowMinor < mostQueues ||
		c.Parent == SmallMinor && c.Minor-SmallLeafMinor < mostQueues
}

// Leftovers gives the steps that delete empty classes of an earlier version, in trees that are
// otherwise as wanted. These steps are not urgent: such a class costs only memory.
func Leftovers(have Endpoint, want Wish) []Step {
	steps := leftovers(Veth, have.Veth, want.Ingress)
	if have.IFB != nil {
		steps = append(steps, leftovers(IFB, *have.IFB, want.Egress)...)
	}
	return steps
}

func leftovers(dev Device, have State, want *Tree) []Step {
	if want == nil || !have.Own() || !have.Classify || !want.Classify {
		return nil
	}
	var steps []Step
	for _, c := range have.Classes {
		waiting := slices.ContainsFunc(have.Queues, func(q Queue) bool { return q.Class == c.Minor && q.Backlog > 0 })
		if want.class(c.Minor) < 0 && c.earlier() && !waiting {
			steps = append(steps, Step{Op: DeleteClass, Device: dev, Class: c})
		}
	}
	return steps
}
