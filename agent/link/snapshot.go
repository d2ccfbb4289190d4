package link

import "netguard/internal/changed"

// Snapshot returns the ports of bridges, in the order in which they were first
// seen. Nobody may change the result: all callers get the same one until a port changes.
func (t *Table) Snapshot() []*Port {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stale {
		return t.ports
	}
	next := make([]*Port, 0, len(t.order))
	for _, v := range t.order {
		was := t.shared[v.Index]
		if was != nil && t.stored != nil && !t.stored[v.Index] {
			next = append(next, was)
		} else if p, ok := t.port(v); ok && was != nil && was.Same(&p) {
			next = append(next, was)
		} else if ok {
			next = append(next, &p)
		}
	}
	t.stale, t.stored = false, map[int]bool{}
	gone, came := changed.Between(t.ports, next)
	for _, p := range gone {
		delete(t.shared, p.Index)
	}
	for _, p := range came {
		t.shared[p.Index] = p
	}
	if len(gone)+len(came) > 0 {
		t.ports = next
	}
	return t.ports
}

// touch notes that a veth may be another one than in the last snapshot. The caller holds t.mu.
func (t *Table) touch(index int) {
	if t.stale = true; t.stored != nil {
		t.stored[index] = true
	}
}

// touchAll notes that any veth may be. The caller holds t.mu.
func (t *Table) touchAll() { t.stale, t.stored = true, nil }
