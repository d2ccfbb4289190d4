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
	// Unmanaged says why netguard leaves it alone; "" if netguard manages it.
	Unmanaged string
	Limits    shaper.Limits
	Wish      shaper.Wish
	Allow     guard.Allow
	// Extra are the addresses of Allow that lie in the container's network.
	Extra []netip.Addr
	// locals are the addresses of Allow that no label names: see linkLocals.
	locals []netip.Addr
	// answers are addresses of its container on other networks. It may send answers from them
	// on this network.
	answers []netip.Addr
	// dhcpServer says that it may answer DHCP clients of its network.
	dhcpServer bool
	// connections is how many it may have open at a time; 0 is no limit.
	connections uint32
	// addrs is what Own gives, worked out once.
	addrs []netip.Addr
	// base is the endpoint that this one is a copy of; nil if it is no copy. See drafts.copies.
	base *Endpoint
	// alone says that only its own labels decide about it, and no other endpoint.
	alone bool
	// Wrong are the faults of its labels, with the remedies: with any of them it is not
	// admitted. notes say what applies otherwise than it was declared.
	Wrong, notes []string
}

// maxTold is how many faults of labels are named for one endpoint.
const maxTold = 20

// Bridge is the bridge that an endpoint is on; "" if there is none.
func (d *Endpoint) Bridge() string {
	if d == nil {
		return ""
	}
	return d.Network.Bridge
}

// Faults are all messages about labels that do not apply as declared.
func (d *Endpoint) Faults() []string { return slices.Concat(d.Wrong, d.notes) }

// newEndpoint works out what an endpoint should have by its labels. It takes all addresses that
// they name: extraAddresses decides later which of them count. on are the names of its
// container's networks, sorted. It is pure.
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
	for _, c := range d.containers() {
		if c.Unread != "" {
			d.Wrong = append(d.Wrong, c.Unread)
		}
	}
	return d
}

// networksOf gives for each container, by its ID, the sorted names of its networks: those where
// it has an endpoint, and those where it was declared to have one.
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

// owns reads the extra addresses that labels name.
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

// counts reads how many connections the container may have open. If containers share a
// namespace, the lowest label counts. No label counts above the operator's limit.
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

// Form is all that a Wish depends on: the same Form means the same Wish.
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

// FormOrNone is Form, or the empty Form for a nil endpoint.
func (d *Endpoint) FormOrNone() Form {
	if d == nil {
		return Form{}
	}
	return d.Form()
}

func (f Form) Empty() bool { return f == Form{} }

// Summary is all that the log says of an endpoint; "" if it is not worth a line.
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
