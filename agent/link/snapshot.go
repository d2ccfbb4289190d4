package link

import "slices"

// Snapshot returns the ports of bridges, in the order in which they were first
// seen. Nobody may change the result: all callers get the same one until a port changes.
func (t *Table) Snapshot() []*Port {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stored != nil && len(t.stored) == 0 {
		return t.ports
	}
	last, next := t.ports, make([]*Port, 0, len(t.order))
	for _, v := range t.order {
		for len(last) > 0 && last[0].Seen < v.Seen {
			last = last[1:]
		}
		var was *Port
		if len(last) > 0 && last[0].Seen == v.Seen {
			was = last[0]
		}
		if was != nil && t.stored != nil && !t.stored[v.Index] {
			next = append(next, was)
		} else if p, ok := t.port(v); ok && was != nil && was.Same(&p) {
			next = append(next, was)
		} else if ok {
			next = append(next, &p)
		}
	}
	t.stored = map[int]bool{}
	if !slices.Equal(t.ports, next) {
		t.ports = next
	}
	return t.ports
}

// touch notes that a veth may differ from the last snapshot. The caller holds t.mu.
func (t *Table) touch(index int) {
	if t.stored != nil {
		t.stored[index] = true
	}
}

// touchAll notes that all veths may differ from the last snapshot. The caller holds t.mu.
func (t *Table) touchAll() { t.stored = nil }
