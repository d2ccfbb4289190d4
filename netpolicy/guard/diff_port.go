package guard

import "slices"

// diffNeighbour compares one entry.
func diffNeighbour(w *work, p *plan, key Neighbour, k *kernelState) {
	n, wanted := p.neighbours[key]
	switch mac, there := k.neighbours[key]; {
	case wanted && mac != n.mac && (key.Addr.Is4() || !k.no6[key.Bridge]):
		w.additions = append(w.additions, step{op: opNeighbour, port: n.port, neighbour: key, mac: n.mac})
	case !wanted && there:
		w.deletions = append(w.deletions, step{op: opForget, neighbour: key})
	}
}

// diffReleased compares a port that is not guarded any more with the settings that it had
// before netguard.
func diffReleased(w *work, p *plan, index int, k *kernelState, f Features) {
	if pp, ok := p.ports[index]; ok && pp.state != Trusted {
		return
	}
	before, recorded := k.before[index]
	if port, ok := k.ports[index]; ok && recorded {
		if want := f.able(before); port.settings != want {
			w.settings = append(w.settings, step{op: opSet, port: index, settings: want})
		}
		unpin(w, k, index, nil)
	}
}

func diffPort(w *work, p *plan, index int, k *kernelState, f Features) {
	pp := p.ports[index]
	port, here := k.ports[index]
	if pp == nil || !here || port.bridge != pp.Bridge || pp.state == Trusted {
		return
	}
	before, ok := k.before[pp.Index]
	if !ok {
		before = portDefaults
	}
	want := quarantined
	switch {
	case p.mode == Monitor:
		want = before
	case pp.state == Admitted:
		want = guarded(before)
	}
	if want = f.able(want); port.settings != want {
		// Until now the bridge may have learned MACs from the container: it must forget them.
		flush := want.on&learning == 0 && port.settings.on&(learning|locked) != want.on&locked
		w.settings = append(w.settings, step{op: opSet, port: pp.Index, settings: want, flush: flush})
	}
	var pinned []MAC
	if p.mode == Enforce && pp.state == Admitted {
		pinned = pp.macs
	}
	for _, m := range pinned {
		if e, ok := k.pins[pp.Index][m]; !ok || !e.pinned(pp.Index, f.Sticky) {
			w.additions = append(w.additions, step{op: opPin, port: pp.Index, mac: m})
		}
	}
	unpin(w, k, pp.Index, pinned)
}

// unpin removes the static entries of a port but for those that are to stay.
func unpin(w *work, k *kernelState, port int, stay []MAC) {
	for mac, e := range k.pins[port] {
		if e.static(port) && !slices.Contains(stay, mac) {
			w.deletions = append(w.deletions, step{op: opUnpin, port: port, mac: mac})
		}
	}
}
