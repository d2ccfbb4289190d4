package agent

import (
	"fmt"

	"netguard/agent/config"
	"netguard/agent/endpoint"
	"netguard/shaper"
)

// desire is what one endpoint should have.
type desire struct {
	endpoint.Endpoint
	limits shaper.Limits
	wish   shaper.Wish
	faults []string // what is wrong with how it was declared, with the remedy
}

// desired gives what every endpoint should have. It is pure.
func desired(endpoints []endpoint.Endpoint, cfg config.Config, leaf shaper.Leaf) []desire {
	out := make([]desire, len(endpoints))
	for i, e := range endpoints {
		out[i] = desire{Endpoint: e, faults: e.Faults}
		if e.Unmanaged == "" {
			out[i].shape(cfg.Limits, leaf)
		}
	}
	return out
}

func (d *desire) shape(op shaper.Operator, leaf shaper.Leaf) {
	declared := []shaper.Declaration{shaper.Decode(d.Container.Labels, d.Network.Name)}
	for _, s := range d.Sharers {
		declared = append(declared, shaper.Decode(s.Labels, d.Network.Name))
	}
	d.limits = op.Resolve(declared...)
	for _, f := range d.limits.Faults {
		d.faults = append(d.faults, f.Error())
	}
	d.faults = append(d.faults, d.limits.Notes...)
	if d.Port == nil {
		return
	}
	for _, dir := range shaper.Directions {
		lim := &d.limits.Limit[dir]
		if lim.Rate == 0 {
			continue
		}
		tree, err := shaper.Build(*lim, d.Port.MTU, leaf)
		if err != nil && lim.Burst != 0 {
			d.faults = append(d.faults, fmt.Sprintf("%s burst: %v: a derived burst applies", dir, err))
			lim.Burst = 0
			tree, err = shaper.Build(*lim, d.Port.MTU, leaf)
		}
		if err != nil {
			// Not reached with a rate that ParseRate takes.
			d.faults = append(d.faults, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		if dir == shaper.Ingress {
			d.wish.Ingress = &tree
		} else {
			d.wish.Egress = &tree
		}
	}
}

// form is what a wish depends on: while it stays, the wish stays.
type form struct {
	limit [2]shaper.Limit
	mtu   int
}

func (d desire) form() form {
	f := form{limit: d.limits.Limit}
	for dir := range f.limit {
		f.limit[dir].Source = ""
	}
	if f.limit[shaper.Ingress].Rate != 0 || f.limit[shaper.Egress].Rate != 0 {
		f.mtu = d.Port.MTU
	}
	return f
}

func (f form) empty() bool { return f == form{} }
