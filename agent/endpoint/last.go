package endpoint

import (
	"cmp"
	"slices"
	"strings"

	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/internal/changed"
)

// last are the input and the result of the last Join, so that the cost of a change does not
// grow with the host.
type last struct {
	view      docker.View
	all       []*Endpoint
	networks  map[string]*network
	sharers   map[string][]docker.Container
	ports     map[string][]*link.Port // by bridge
	snapshot  []*link.Port
	sandboxes map[string]Sandbox
}

// network is the last result of Join for one network.
type network struct {
	docker.Network
	ports []*link.Port
	by    map[string]*Endpoint // by container
	again map[string]bool      // the containers to look at at the next time
	// settled says that to join again gives the same until the observation changes: each
	// endpoint has its port, and each port is bound or disbelieved.
	settled bool
}

// group notes the ports by bridge, and gives those that are gone.
func (l *last) group(ports []*link.Port) (gone []*link.Port) {
	left, came := changed.Between(l.snapshot, ports)
	if l.snapshot = ports; l.ports == nil {
		l.ports = map[string][]*link.Port{}
	}
	others := map[string]bool{}
	for _, p := range slices.Concat(left, came) {
		others[p.MasterName] = true
		delete(l.ports, p.MasterName)
	}
	for i := 0; i < len(ports) && len(others) > 0; i++ {
		if p := ports[i]; others[p.MasterName] {
			l.ports[p.MasterName] = append(l.ports[p.MasterName], p)
		}
	}
	return slices.DeleteFunc(slices.Clone(left), func(p *link.Port) bool { return has(came, p.Seen) })
}

func has(ports []*link.Port, seen uint64) bool {
	return slices.ContainsFunc(ports, func(p *link.Port) bool { return p.Seen == seen })
}

// compare gives the networks that have to be joined again, and notes in each for which
// containers. It removes the bindings that no longer count.
func (l *last) compare(o Observation, bound Bindings) (affected []string) {
	if l.networks == nil {
		l.networks, l.all = map[string]*network{}, nil
	}
	others, less := l.containers(o.View)
	l.asked(o.Sandboxes, others)
	l.view, l.sandboxes = o.View, o.Sandboxes
	for nid, is := range o.View.Networks {
		n := l.networks[nid]
		if n == nil {
			n = &network{by: map[string]*Endpoint{}, again: map[string]bool{}}
			l.networks[nid] = n
		}
		left, came := changed.Between(n.Endpoints, is.Endpoints)
		if !n.Same(&is) {
			came = is.Endpoints
		}
		n.Network = is
		lost := map[Key]bool{}
		for _, a := range slices.Concat(left, came) {
			if n.again[a.ID] = true; n.Attachment(a.ID) == nil {
				lost[Key{a.ID, nid}] = true
			}
		}
		for id := range others {
			if n.Attachment(id) != nil {
				n.again[id] = true
			}
		}
		if len(lost) > 0 {
			less = true
			bound.lose(n, func(key Key) bool { return lost[key] })
		}
		if n.moved(l.ports[is.Bridge], bound) || len(n.again) > 0 || !n.settled {
			affected = append(affected, nid)
		}
	}
	if less || len(l.networks) > len(o.View.Networks) {
		bound.clean(o)
	}
	return affected
}

// asked adds the containers whose namespaces are not the same as at the last time.
func (l *last) asked(sandboxes map[string]Sandbox, others map[string]bool) {
	if changed.Identical(l.sandboxes, sandboxes) {
		return
	}
	for id, s := range sandboxes {
		if was, known := l.sandboxes[id]; !known || was != s {
			others[id] = true
		}
	}
	for id := range l.sandboxes {
		if _, known := sandboxes[id]; !known {
			others[id] = true
		}
	}
}

// moved notes which ports are on the network's bridge, and tells whether they changed.
func (n *network) moved(ports []*link.Port, bound Bindings) bool {
	left, came := changed.Between(n.ports, ports)
	for _, p := range slices.Concat(left, came) {
		key := bound.ports[p.Seen]
		if key.Network != n.ID {
			continue
		}
		if n.again[key.Container] = true; !has(ports, p.Seen) {
			bound.beside[key] = n.seen()
		}
	}
	n.ports = ports
	return len(left)+len(came) > 0
}

// seen is the newest port (link.Port.Seen) that was on the network's bridge at the last time.
func (n *network) seen() (last uint64) {
	for _, p := range n.ports {
		last = max(last, p.Seen)
	}
	return last
}

// containers gives the containers that changed since the last view, and those whose namespaces
// they share. gone says that a container is not there any more.
func (l *last) containers(v docker.View) (others map[string]bool, gone bool) {
	left, came := changed.Between(l.view.Containers, v.Containers)
	others = map[string]bool{}
	shares := l.sharers == nil
	for _, c := range left {
		if shares = shares || c.SandboxOf != ""; v.Container(c.ID) == nil {
			others[c.ID], others[c.SandboxOf], gone = true, true, true
		}
	}
	for _, c := range came {
		shares = shares || c.SandboxOf != ""
		was := l.view.Container(c.ID)
		if was == nil || !was.SameDeclared(c) || c.SandboxOf != "" && was.Lives() != c.Lives() {
			if others[c.ID], others[c.SandboxOf] = true, true; was != nil {
				others[was.SandboxOf] = true
			}
		}
	}
	delete(others, "")
	if shares {
		l.sharers = sharers(v)
	}
	return others, gone
}

// sharers lists, for each owner of a namespace, the other containers that run in it or may start
// at any moment. Their labels must count before their first instruction, but Docker reports the
// start only afterwards.
func sharers(v docker.View) map[string][]docker.Container {
	out := map[string][]docker.Container{}
	for _, c := range v.Containers {
		if c.SandboxOf != "" && c.Lives() {
			out[c.SandboxOf] = append(out[c.SandboxOf], *c)
		}
	}
	for _, cs := range out {
		slices.SortFunc(cs, func(a, b docker.Container) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
		})
	}
	return out
}

// replace removes some endpoints from all and adds others. It makes a new slice: the old one was
// handed out and must not change.
func (l *last) replace(gone, came []*Endpoint) {
	if len(gone)+len(came) == 0 {
		return
	}
	all := append(make([]*Endpoint, 0, len(l.all)+len(came)), l.all...)
	for _, e := range gone {
		if i, there := slices.BinarySearchFunc(all, e, (*Endpoint).order); there {
			all = slices.Delete(all, i, i+1)
		}
	}
	for _, e := range came {
		i, _ := slices.BinarySearchFunc(all, e, (*Endpoint).order)
		all = slices.Insert(all, i, e)
	}
	l.all = all
}
