package agent

import (
	"fmt"
	"maps"
	"strings"

	"netguard/agent/endpoint"
	"netguard/shaper"
)

// tale is what was logged last about an endpoint.
type tale struct {
	of    *desire
	text  string
	round uint64
}

// tell logs what became of endpoints, one line each time that changes.
func (l *loop) tell(s *state) {
	l.round++
	for _, d := range s.desires {
		was := l.told[d.Key]
		if was == nil {
			was = &tale{}
			l.told[d.Key] = was
		}
		if was.round = l.round; was.of == d {
			continue
		}
		was.of = d
		now := d.summary()
		if was.text == now {
			continue
		}
		was.text = now
		at := l.log.With("container", d.Container.Name, "network", d.Network.Name)
		if faults := d.faults(); len(faults) > 0 {
			at.Warn("endpoint is not as declared", "ingress", describe(d.limits.Limit[shaper.Ingress]),
				"egress", describe(d.limits.Limit[shaper.Egress]), "faults", strings.Join(faults, "; "))
			continue
		}
		if d.Port != nil {
			at.Info("endpoint", "veth", d.Port.Name, "ingress", describe(d.limits.Limit[shaper.Ingress]),
				"egress", describe(d.limits.Limit[shaper.Egress]))
		}
	}
	if len(l.told) > len(s.desires) {
		maps.DeleteFunc(l.told, func(_ endpoint.Key, t *tale) bool { return t.round != l.round })
	}
}

// summary is all that tell would say, and empty for what is not worth a line.
func (d *desire) summary() string {
	if (d.Unmanaged != "" || d.Port == nil) && len(d.faults()) == 0 {
		return ""
	}
	veth := ""
	if d.Port != nil && len(d.faults()) == 0 {
		veth = d.Port.Name
	}
	return fmt.Sprint(veth, d.limits.Limit, d.faults())
}

func describe(lim shaper.Limit) string {
	if lim.Rate == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%v (%s)", lim.Rate, lim.Source)
}
