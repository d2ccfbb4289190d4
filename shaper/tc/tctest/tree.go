package tctest

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"netguard/shaper"
	"netguard/shaper/tc"
)

// tree carries out a step about the tree at a link's root.
func (l *link) tree(s shaper.Step) error {
	t := &l.state
	if s.Op == shaper.AddRoot {
		if t.Root.Major != 0 {
			return tc.ErrOccupied
		}
		*t = shaper.State{Root: shaper.Root{Kind: "htb", Major: shaper.RootMajor, Default: s.Default}}
		return nil
	}
	if !t.Own() {
		if s.Op == shaper.DeleteRoot || s.Op == shaper.DeleteClass {
			return nil
		}
		return unix.ENOENT
	}
	class := func(minor uint16) int {
		return slices.IndexFunc(t.Classes, func(c shaper.Class) bool { return c.Minor == minor })
	}
	queue := slices.IndexFunc(t.Queues, func(q shaper.Queue) bool { return q.Class == s.Queue.Class })
	switch s.Op {
	case shaper.DeleteRoot:
		*t = shaper.State{}
	case shaper.AddClass, shaper.ChangeClass:
		switch at := class(s.Class.Minor); {
		case s.Class.Rate == 0 || s.Class.Ceil == 0:
			return unix.EINVAL
		case at >= 0:
			t.Classes[at] = s.Class
		default:
			if class(s.Class.Parent) < 0 {
				s.Class.Parent = 0 // HTB takes it for one of the root
			}
			t.Classes = append(t.Classes, s.Class)
		}
	case shaper.DeleteClass:
		if slices.ContainsFunc(t.Classes, func(c shaper.Class) bool { return c.Parent == s.Class.Minor }) {
			return unix.EBUSY
		}
		t.Classes = slices.DeleteFunc(t.Classes, func(c shaper.Class) bool { return c.Minor == s.Class.Minor })
		t.Queues = slices.DeleteFunc(t.Queues, func(q shaper.Queue) bool { return q.Class == s.Class.Minor })
	case shaper.AddQueue, shaper.ReplaceQueue:
		if s.Op == shaper.ReplaceQueue && queue >= 0 {
			t.Queues = slices.Delete(t.Queues, queue, queue+1)
		} else if queue >= 0 {
			return tc.ErrOccupied
		}
		if class(s.Queue.Class) < 0 {
			return unix.ENOENT
		}
		t.Queues = append(t.Queues, s.Queue)
	case shaper.ChangeQueue:
		if queue < 0 || t.Queues[queue].Kind != s.Queue.Kind {
			return unix.ENOENT
		}
		t.Queues[queue] = s.Queue
	case shaper.AddClassifier:
		t.Classify = true
	default:
		return fmt.Errorf("unknown operation %d", s.Op)
	}
	return nil
}
