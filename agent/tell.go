package agent

import (
	"fmt"
	"strings"

	"netguard/agent/endpoint"
	"netguard/shaper"
)

// tell logs what became of endpoints, one line each time that changes.
func (l *loop) tell(s *state) {
	here := make(map[endpoint.Key]struct{}, len(s.desires))
	for _, d := range s.desires {
		here[d.Key] = struct{}{}
		now := d.summary()
		was, known := l.told[d.Key]
		if known && was == now || !known && now == "" {
			continue
		}
		l.told[d.Key] = now
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
	for key := range l.told {
		if _, ok := here[key]; !ok {
			delete(l.told, key)
		}
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
