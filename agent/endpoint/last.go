package endpoint

import (
	"cmp"
	"slices"
	"strings"

	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/internal/changed"
)

// last is what Join looked at and came to last, so that a change costs what it is about
// and not what there is.
type last struct {
	view      docker.View
	all       []*Endpoint
	networks  map[string]*network
	sharers   map[string][]docker.Container
	ports     map[string][]*link.Port // by bridge
	snapshot  []*link.Port
	sandboxes map[string]Sandbox
}

// network is what Join came to for one network.
type network struct {
	docker.Network
	ports     []*link.Port
	endpoints []*Endpoint
	by        map[string]*Endpoint // by container
	// settled says that nothing but another observation would come to something else:
	// each endpoint has its port, and each port is somebody's.
	settled bool
}

func (n *network) all() []*Endpoint {
	if n == nil {
		return nil
	}
	return n.endpoints
}

func (n *network) endpoint(container string) *Endpoint {
	if n == nil {
		return nil
	}
	return n.by[container]
}

// compare gives the networks that have to be joined again, tells whether any port, container
// or attachment may have come or gone, and keeps what it looked at.
func (l *last) compare(o Observation) (affected []string, moved bool) {
	if l.networks == nil {
		l.networks, l.all, moved = map[string]*network{}, nil, true
	}
	all := !changed.Same(l.sandboxes, o.Sandboxes)
	others, gone := l.containers(o.View)
	moved = moved || gone
	if l.ports == nil || !slices.Equal(l.snapshot, o.Ports) {
		l.ports, moved = map[string][]*link.Port{}, true
		for _, p := range o.Ports {
			l.ports[p.MasterName] = append(l.ports[p.MasterName], p)
		}
	}
	l.view, l.snapshot, l.sandboxes = o.View, o.Ports, o.Sandboxes
	for nid, n := range o.View.Networks {
		was := l.networks[nid]
		same := was != nil && was.Network.SameEndpoints(&n)
		moved = moved || !same
		if all || !same || !was.settled || !was.Network.Same(&n) || !slices.Equal(was.ports, l.ports[n.Bridge]) || touches(n, others) {
			affected = append(affected, nid)
		}
	}
	return affected, moved || all || len(l.networks) > len(o.View.Networks)
}

// containers gives those that are others than in the last view, and those that share
// namespaces with them, and tells whether any is gone.
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

// touches tells whether a network has one of some containers.
func touches(n docker.Network, containers map[string]bool) bool {
	for id := range containers {
		if n.Attachment(id) != nil {
			return true
		}
	}
	return false
}

// sharers lists who runs in whose namespace, or is about to: what is said of it has
// to hold before its first instruction, and Docker tells of that afterwards.
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

// replace puts endpoints in the place of others in all, which was handed out and does not
// change.
func (l *last) replace(was, is []*Endpoint) {
	gone, came := changed.Between(was, is)
	if len(gone)+len(came) == 0 {
		return
	}
	out := make(map[*Endpoint]bool, len(gone))
	for _, e := range gone {
		out[e] = true
	}
	came = slices.SortedFunc(slices.Values(came), (*Endpoint).order)
	all := make([]*Endpoint, 0, len(l.all)+len(came))
	for _, e := range l.all {
		for len(came) > 0 && came[0].order(e) < 0 {
			all, came = append(all, came[0]), came[1:]
		}
		if !out[e] {
			all = append(all, e)
		}
	}
	l.all = append(all, came...)
}
