// Package endpoint joins what Docker declares with what the kernel has: which
// bridge port is which container's on which network. It is pure.
//
// It promises that a port is bound to a container once and for the port's whole
// life, and never on the word of a view that is older than the port: an address
// that a dead container left behind and a new one got does not make the new one
// the old.
package endpoint

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"netguard/agent/docker"
	"netguard/agent/link"
)

// Label is the one that turns netguard off for a container, where the operator
// permits it.
const Label = "netguard.enabled"

// Key names an endpoint: a container on a network, by their IDs.
type Key struct{ Container, Network string }

// Endpoint is one container on one network.
type Endpoint struct {
	Key
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
}

// Observation is what Join looks at.
type Observation struct {
	View  docker.View
	Ports []link.Port
	// Fresh gives for each network (by ID) how far the ports had been seen
	// (link.Port.Seen) when reading it began: later ones may belong to
	// somebody whom the view does not know.
	Fresh map[string]uint64
	// Sandboxes gives for containers (by ID) that ran when they were first
	// seen the id of their network namespace.
	Sandboxes map[string]int
	// Old is the number up to which ports were there before netguard was.
	// A container that ran unwatched may have changed its MAC, so for those
	// only the namespace counts.
	Old uint64
}

// Bindings are the ports whose container is known, by link.Port.Seen.
type Bindings map[uint64]Key

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
	for seen, key := range bound {
		if _, attached := o.View.Networks[key.Network].Endpoints[key.Container]; !attached || !here[seen] {
			delete(bound, seen)
		}
	}
	sharers := sharers(o.View)
	var out []Endpoint
	for nid, n := range o.View.Networks {
		for cid, a := range n.Endpoints {
			c, known := o.View.Containers[cid]
			if !known {
				continue // a swarm's own, or listed in a moment
			}
			e := Endpoint{Key: Key{cid, nid}, Container: c, Sharers: sharers[cid], Network: n, Attachment: a}
			e.Unmanaged, e.Faults = op.manages(n, c)
			e.Beyond = beyond(n) != ""
			if n.Bridge != "" {
				e.Port = o.port(e, byBridge[n.Bridge], bound)
			}
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Endpoint) int {
		return compare(a.Container.Name, b.Container.Name, a.Network.Name, b.Network.Name, a.Key.Container, b.Key.Container, a.Key.Network, b.Key.Network)
	})
	return out
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
func (o Observation) port(e Endpoint, ports []*link.Port, bound Bindings) *link.Port {
	for _, p := range ports {
		if bound[p.Seen] == e.Key {
			return p
		}
	}
	var found []*link.Port
	for _, p := range ports {
		if _, taken := bound[p.Seen]; taken || p.NSID < 0 || p.Seen > o.Fresh[e.Key.Network] {
			continue
		}
		if ns, known := o.Sandboxes[e.Key.Container]; known && p.Seen <= o.Old {
			if p.NSID == ns {
				found = []*link.Port{p}
				break
			}
			continue
		}
		if e.Attachment.MAC != nil && slices.Equal(p.PeerMAC, e.Attachment.MAC) {
			found = append(found, p)
		}
	}
	// Two with the same MAC: one of them lies, or the operator chose it twice.
	if len(found) != 1 {
		return nil
	}
	bound[found[0].Seen] = e.Key
	return found[0]
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
	case value == "false" && op.AllowOptOut:
		return "its label " + Label + "=false opts out", nil
	case value == "false":
		faults = append(faults, fmt.Sprintf("label %s=false has no effect: the operator's configuration does not permit it (allow_opt_out: true)", Label))
	default:
		faults = append(faults, fmt.Sprintf("label %s=%.40q: it is true or false", Label, value))
	}
	return "", faults
}
