// Package endpoint joins what Docker declares with what the kernel has: which
// bridge port is which container's on which network. It is pure.
//
// It promises that a port is bound to a container once and for the port's whole
// life, and never on the word of a view that is older than the port: an address
// that a dead container left behind and a new one got does not make the new one
// the old.
//
// A port's MAC says whose it is where it was read before the container could change
// it, which is nearly always, and sooner than anything else does. It counts no more
// where it may be a lie: the network namespace is asked for then, which no container
// chooses.
package endpoint

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"netguard/agent/docker"
	"netguard/agent/link"
)

// Label is the one that turns netguard off for a container, where the operator
// permits it.
const Label = "netguard.enabled"

// Key names an endpoint: a container on a network, by their IDs.
type Key struct{ Container, Network string }

// Endpoint is one container on one network, or something else that Docker lists there.
type Endpoint struct {
	Key
	// Container is what is known of it. An endpoint of another kind has the name that
	// Docker lists it by, as ID too, and no labels.
	Container docker.Container
	// Sharers are the other containers that run in the same network
	// namespace, by name.
	Sharers    []docker.Container
	Network    docker.Network
	Attachment docker.Attachment
	// Port is the host's end, nil where there is none (yet).
	Port *link.Port
	// Unmanaged says why netguard leaves it alone, "" if it does not.
	Unmanaged string
	// Contested says that it has no port because a MAC does not tell which: several
	// have it, or one that is not to be believed. Its Sandbox tells.
	Contested bool
	// Beyond says that it is because of the network's driver, and not because
	// somebody wants it so.
	Beyond bool
	// Faults are what is wrong with how the endpoint was declared.
	Faults []string
}

// Operator is what the configuration says about which endpoints are managed.
type Operator struct {
	Exclude     []string // patterns of network names
	AllowOptOut bool     // netguard.enabled=false counts
	// Left says of bridges, by name, why their networks are left alone.
	Left map[string]string
}

// Observation is what Join looks at.
type Observation struct {
	View  docker.View
	Ports []link.Port
	// Fresh gives for each network (by ID) how far the ports had been seen
	// (link.Port.Seen) when reading it began: later ones may belong to
	// somebody whom the view does not know.
	Fresh map[string]uint64
	// Sandboxes gives the network namespaces of containers (by ID) for which they
	// were asked for: of those that ran when netguard began, and may have changed
	// their MACs unwatched, and of those whose ports were contested.
	Sandboxes map[string]Sandbox
	Now       time.Time
}

// Sandbox is a container's network namespace.
type Sandbox struct {
	NSID int // what this namespace calls it
	// Seen is how far the ports had been seen when it was asked for. Of those
	// nothing else counts; later ones may be of the container's next start.
	Seen uint64
}

// Bindings are what Join has found out about ports, which are named by link.Port.Seen.
type Bindings struct {
	// ports gives whose they are. Those with the zero Key are nobody's whom their
	// MAC names.
	ports map[uint64]Key
	// beside is how far ports had been seen while the endpoint had one. None of
	// those will be its next one, whatever MAC they have by then.
	beside map[Key]uint64
}

// NewBindings knows of no port.
func NewBindings() Bindings {
	return Bindings{ports: map[uint64]Key{}, beside: map[Key]uint64{}}
}

// unclaimed is how long after a port came Docker may name its container. Who has none
// by then may wait for somebody whose MAC it has.
const unclaimed = 5 * time.Second

// Join gives all endpoints that the view names, ordered by container and
// network name, and updates the bindings.
func Join(o Observation, op Operator, bound Bindings) []Endpoint {
	byBridge := map[string][]*link.Port{}
	here := map[uint64]bool{}
	for i := range o.Ports {
		p := &o.Ports[i]
		here[p.Seen] = true
		byBridge[p.MasterName] = append(byBridge[p.MasterName], p)
	}
	for seen, key := range bound.ports {
		_, attached := o.View.Networks[key.Network].Endpoints[key.Container]
		if !here[seen] || !attached && key != (Key{}) {
			delete(bound.ports, seen)
		}
	}
	for key := range bound.beside {
		_, there := o.View.Containers[key.Container]
		n, known := o.View.Networks[key.Network]
		there = there || n.Endpoints[key.Container].Kind != docker.KindContainer
		if !there || !known {
			delete(bound.beside, key)
		}
	}
	sharers := sharers(o.View)
	var out []Endpoint
	for nid, n := range o.View.Networks {
		for _, cid := range provenFirst(n.Endpoints) {
			a := n.Endpoints[cid]
			c, known := o.View.Containers[cid]
			switch {
			case a.Kind != docker.KindContainer && n.Bridge == "":
				continue // a swarm's own
			case a.Kind != docker.KindContainer:
				c = docker.Container{ID: cid, Name: cid, State: "running"}
			case !known:
				continue // listed in a moment
			}
			e := Endpoint{Key: Key{cid, nid}, Container: c, Sharers: sharers[cid], Network: n, Attachment: a}
			e.Unmanaged, e.Faults = op.manages(n, c)
			e.Beyond = beyond(n) != ""
			if n.Bridge != "" {
				e.Port, e.Contested = o.port(e, byBridge[n.Bridge], bound)
			}
			out = append(out, e)
		}
		o.disbelieve(nid, byBridge[n.Bridge], bound)
	}
	slices.SortFunc(out, func(a, b Endpoint) int {
		return compare(a.Container.Name, b.Container.Name, a.Network.Name, b.Network.Name, a.Key.Container, b.Key.Container, a.Key.Network, b.Key.Network)
	})
	return out
}

// provenFirst gives the keys of attachments, those of containers first. Of what is no
// container nothing but the MAC tells the port: it gets none that is a container's by
// its namespace.
func provenFirst(all map[string]docker.Attachment) []string {
	keys := slices.Collect(maps.Keys(all))
	rank := func(key string) int {
		if all[key].Kind != docker.KindContainer {
			return 1
		}
		return 0
	}
	slices.SortFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
	return keys
}

func compare(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		if c := strings.Compare(pairs[i], pairs[i+1]); c != 0 {
			return c
		}
	}
	return 0
}

// sharers lists who runs in whose namespace, or is about to: what is said of it has
// to hold before its first instruction, and Docker tells of that afterwards.
func sharers(v docker.View) map[string][]docker.Container {
	out := map[string][]docker.Container{}
	for _, c := range v.Containers {
		if c.SandboxOf != "" && c.Lives() {
			out[c.SandboxOf] = append(out[c.SandboxOf], c)
		}
	}
	for _, cs := range out {
		slices.SortFunc(cs, func(a, b docker.Container) int { return compare(a.Name, b.Name, a.ID, b.ID) })
	}
	return out
}

// port finds the endpoint's port among those of its bridge, and binds it.
func (o Observation) port(e Endpoint, ports []*link.Port, bound Bindings) (_ *link.Port, contested bool) {
	for _, p := range ports {
		if bound.ports[p.Seen] == e.Key {
			return p, false
		}
	}
	var found []*link.Port
	later := false // a port that the view may not know has the MAC too
	for _, p := range ports {
		key, known := bound.ports[p.Seen]
		if known && key != (Key{}) || p.NSID < 0 {
			continue
		}
		if p.Seen > o.Fresh[e.Key.Network] {
			later = later || e.Attachment.MAC != nil && slices.Equal(p.PeerMAC, e.Attachment.MAC)
			continue
		}
		if ns, asked := o.Sandboxes[e.Key.Container]; asked && p.Seen <= ns.Seen {
			if p.NSID == ns.NSID {
				bound.ports[p.Seen] = e.Key
				return p, false
			}
			continue
		}
		switch {
		case e.Attachment.MAC == nil || !slices.Equal(p.PeerMAC, e.Attachment.MAC):
		case known || p.Seen <= bound.beside[e.Key]:
			contested = true
		default:
			found = append(found, p)
		}
	}
	// Two with the same MAC: one of them lies, or the operator chose it twice.
	if len(found) != 1 || later {
		return nil, contested || len(found) > 0
	}
	bound.ports[found[0].Seen] = e.Key
	return found[0], false
}

// disbelieve notes the ports of a network whose MAC does not count: it is that of a
// container that has another port, or nobody's for long. What they wait for is that
// whose MAC it is goes, or comes. That a MAC is not final excuses nobody: a container
// that may change it may keep its link down as well.
func (o Observation) disbelieve(network string, ports []*link.Port, bound Bindings) {
	claimed := map[string]bool{}
	last := uint64(0)
	for _, p := range ports {
		last = max(last, p.Seen)
	}
	for _, p := range ports {
		// As Docker has it: a proven port may itself have a MAC that is a lie.
		if key := bound.ports[p.Seen]; key.Network == network {
			bound.beside[key] = last
			claimed[string(o.View.Networks[network].Endpoints[key.Container].MAC)] = true
		}
	}
	for _, p := range ports {
		_, known := bound.ports[p.Seen]
		if known || p.NSID < 0 || p.PeerMAC == nil || p.Seen > o.Fresh[network] {
			continue
		}
		if claimed[string(p.PeerMAC)] || !p.Since.IsZero() && o.Now.Sub(p.Since) > unclaimed {
			bound.ports[p.Seen] = Key{}
		}
	}
}

// Manages tells whether netguard manages a network.
func (op Operator) Manages(n docker.Network) bool { return op.leaves(n) == "" }

// beyond says why a network cannot be managed, "" if it can.
func beyond(n docker.Network) string {
	switch n.Driver {
	case "bridge":
	case "host":
		return "it uses the host's own network (--network host)"
	case "null":
		return "it has no network (--network none)"
	case "macvlan", "ipvlan", "overlay":
		return fmt.Sprintf("its network's driver is %s, whose traffic crosses no bridge of this host that netguard could guard", n.Driver)
	default:
		return fmt.Sprintf("its network's driver is %q: netguard manages networks of the driver bridge", n.Driver)
	}
	return ""
}

// leaves says why a network is left alone, "" if it is not.
func (op Operator) leaves(n docker.Network) string {
	if why := beyond(n); why != "" {
		return why
	}
	if why, ok := op.Left[n.Bridge]; ok && n.Bridge != "" {
		return why
	}
	for _, pattern := range op.Exclude {
		if ok, err := path.Match(pattern, n.Name); ok && err == nil {
			return fmt.Sprintf("the configuration excludes its network (networks.exclude: %s)", pattern)
		}
	}
	return ""
}

// manages says why an endpoint is left alone, "" if it is not.
func (op Operator) manages(n docker.Network, c docker.Container) (reason string, faults []string) {
	if reason := op.leaves(n); reason != "" {
		return reason, nil
	}
	switch value, there := c.Labels[Label]; {
	case !there || value == "true":
	case value == "false" && op.AllowOptOut && !c.Counts(Label):
		why := "the image has the same, and an image cannot opt out"
		if c.Unproven != "" {
			why = c.Unproven
		}
		faults = append(faults, fmt.Sprintf("label %s=false has no effect: %s: add the image to trust_image_labels of the configuration (docker lists it as %.200q), or exclude the network", Label, why, c.Image))
	case value == "false" && op.AllowOptOut:
		return "its label " + Label + "=false opts out", nil
	case value == "false":
		faults = append(faults, fmt.Sprintf("label %s=false has no effect: the operator's configuration does not permit it (allow_opt_out: true)", Label))
	default:
		faults = append(faults, fmt.Sprintf("label %s=%.40q: it is true or false", Label, value))
	}
	return "", faults
}
