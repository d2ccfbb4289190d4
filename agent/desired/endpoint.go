package desired

import (
	"fmt"
	"net/netip"
	"slices"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

// Endpoint is what one endpoint should have.
type Endpoint struct {
	endpoint.Endpoint
	// Unmanaged says why netguard leaves it alone, "" if it does not.
	Unmanaged string
	Limits    shaper.Limits
	Wish      shaper.Wish
	Allow     guard.Allow
	// extra are those of allow's addresses that are of the container's network.
	Extra []netip.Addr
	// locals are those of allow's that no label names: see linkLocals.
	locals []netip.Addr
	// answers are its container's addresses on other networks, under which it may
	// answer on this one.
	answers []netip.Addr
	// dhcpServer says that it may answer DHCP clients of its network.
	dhcpServer bool
	// connections is how many it may have open at a time; 0 is no limit.
	connections uint32
	// addrs are own's, worked out once.
	addrs []netip.Addr
	// base is what it was copied from, to be changed; nil where it was not: see drafts.
	base *Endpoint
	// alone says that no other endpoint, and nothing but its labels, decides about it.
	alone bool
	// wrong is what is wrong with its labels, with the remedy: it is not to be
	// admitted. notes are what holds other than as it was declared.
	Wrong, notes []string
}

// maxTold is how many faults of labels are named for one endpoint.
const maxTold = 20

// Bridge is the one that an endpoint is on, "" of none.
func (d *Endpoint) Bridge() string {
	if d == nil {
		return ""
	}
	return d.Network.Bridge
}

// Faults are all that is not as declared.
func (d *Endpoint) Faults() []string { return slices.Concat(d.Wrong, d.notes) }

// newEndpoint works out what an endpoint should have, with all addresses that labels name:
// extraAddresses decides later which of them count. On are the networks of its container. It
// is pure.
func newEndpoint(e *endpoint.Endpoint, op endpoint.Operator, cfg *config.Config, leaf shaper.Leaf, on []string) *Endpoint {
	d := &Endpoint{Endpoint: *e, addrs: ownOf(e)}
	d.trust(cfg.TrustImageLabels)
	d.Unmanaged, d.notes = op.Unmanaged(d.Network, d.Container)
	if endpoint.Beyond(d.Network) {
		d.inVain(on)
	}
	if d.Unmanaged != "" {
		return d
	}
	if d.kind(cfg) {
		d.shape(cfg.Limits, leaf, on)
		d.counts(cfg.Connections)
	}
	d.owns()
	d.serves(cfg, on)
	return d
}

// networksOf gives the names of the networks that each container is on, by its ID,
// sorted: where it has an endpoint, and where it was declared to have one.
func networksOf(endpoints []*endpoint.Endpoint) map[string][]string {
	on := map[string][]string{}
	for _, e := range endpoints {
		id := e.Key.Container
		if _, known := on[id]; !known {
			on[id] = slices.Clone(e.Container.Networks)
		}
		on[id] = append(on[id], e.Network.Name)
	}
	for id, names := range on {
		slices.Sort(names)
		on[id] = slices.Compact(names)
	}
	return on
}

// containers are all that run in the endpoint's network namespace.
func (d *Endpoint) containers() []docker.Container {
	return append([]docker.Container{d.Container}, d.Sharers...)
}

// owns reads which further addresses are the container's.
func (d *Endpoint) owns() {
	for _, c := range d.containers() {
		label, ok := c.Labels[guard.LabelAllow]
		if !ok {
			continue
		}
		allow, err := guard.ParseAllow(label)
		if err != nil {
			d.Wrong = append(d.Wrong, err.Error())
			continue
		}
		if !c.Counts(guard.LabelAllow) {
			d.notes = append(slices.Clip(d.notes), fmt.Sprintf("label %s of %s does not count: %s; %s", guard.LabelAllow, c.Name, imageWhy(c), imageRemedy(c)))
			continue
		}
		d.Allow.Prefixes = append(d.Allow.Prefixes, allow.Prefixes...)
		d.Allow.MACs = append(d.Allow.MACs, allow.MACs...)
	}
}

// counts reads how many connections the container may have open. Of containers that
// share a namespace the lowest counts, and none counts beyond the operator's.
func (d *Endpoint) counts(operator uint32) {
	var asked []uint32
	for _, c := range d.containers() {
		label, ok := c.Labels[guard.LabelConnections]
		if !ok {
			continue
		}
		n, err := guard.ParseConnections(label)
		if err != nil {
			d.Wrong = append(d.Wrong, err.Error())
			continue
		}
		asked = append(asked, n)
	}
	limit, above := guard.Within(operator, asked...)
	if d.connections = limit; above {
		d.notes = append(d.notes, fmt.Sprintf("label %s asks for %d connections, the operator's limit (guard.connections) is %d: it applies", guard.LabelConnections, slices.Max(asked), operator))
	}
}

func (d *Endpoint) shape(op shaper.Operator, leaf shaper.Leaf, on []string) {
	var declared, own []shaper.Declaration
	images := false
	for _, c := range d.containers() {
		declared = append(declared, shaper.Decode(c.Labels, d.Network.Name, on))
		labels, some := ownBandwidth(c)
		own, images = append(own, shaper.Decode(labels, d.Network.Name, on)), images || some
	}
	d.Limits = op.Resolve(declared...)
	if images {
		d.atMost(op.Resolve(own...))
	}
	for i, f := range d.Limits.Faults {
		if i == maxTold {
			d.Wrong = append(d.Wrong, fmt.Sprintf("%d more labels have faults", len(d.Limits.Faults)-i))
			break
		}
		d.Wrong = append(d.Wrong, f.Error())
	}
	d.notes = append(d.notes, d.Limits.Notes...)
	if d.Port == nil {
		return
	}
	for _, dir := range shaper.Directions {
		lim := &d.Limits.Limit[dir]
		if lim.Rate == 0 {
			continue
		}
		tree, err := shaper.Build(*lim, dir, d.Port.MTU, leaf)
		if err != nil && lim.Burst != 0 {
			d.notes = append(d.notes, fmt.Sprintf("%s burst: %v: a derived burst applies", dir, err))
			lim.Burst = 0
			tree, err = shaper.Build(*lim, dir, d.Port.MTU, leaf)
		}
		if err != nil {
			// Not reached with a rate that ParseRate takes.
			d.Wrong = append(d.Wrong, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		if dir == shaper.Ingress {
			d.Wish.Ingress = &tree
		} else {
			d.Wish.Egress = &tree
		}
	}
}

// Form is what a wish depends on: while it stays, the wish stays.
type Form struct {
	limit [2]shaper.Limit
	mtu   int
}

// Form gives what the wish depends on.
func (d *Endpoint) Form() Form {
	f := Form{limit: d.Limits.Limit}
	for dir := range f.limit {
		f.limit[dir].Source = ""
	}
	if f.limit[shaper.Ingress].Rate != 0 || f.limit[shaper.Egress].Rate != 0 {
		f.mtu = d.Port.MTU
	}
	return f
}

// FormOrNone is the form of nothing where there is no endpoint.
func (d *Endpoint) FormOrNone() Form {
	if d == nil {
		return Form{}
	}
	return d.Form()
}

func (f Form) Empty() bool { return f == Form{} }

// Summary is all that a log says of an endpoint, and empty for what is not worth a line.
func (d *Endpoint) Summary() string {
	if (d.Unmanaged != "" || d.Port == nil) && len(d.Faults()) == 0 {
		return ""
	}
	veth := ""
	if d.Port != nil && len(d.Faults()) == 0 {
		veth = d.Port.Name
	}
	return fmt.Sprint(veth, d.Limits.Limit, d.Faults())
}

func Describe(lim shaper.Limit) string {
	if lim.Rate == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%v (%s)", lim.Rate, lim.Source)
}
