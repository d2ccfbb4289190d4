package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
)

// PublishedChange is a published port by which docker-proxy reached a container and no longer
// does, or the other way round. For policies docker-proxy is the host, whoever uses the port: a
// container of any network, or the host by a loopback address. Connections that the kernel leads
// on to the container are among Delta.Connections.
type PublishedChange struct {
	Container string   `json:"container" yaml:"container"`
	Network   string   `json:"network" yaml:"network"`
	Port      string   `json:"port" yaml:"port"`       // of the host, such as tcp/8080
	Service   string   `json:"service" yaml:"service"` // of the container
	Allowed   bool     `json:"allowed" yaml:"allowed"` // after the change
	Policies  []string `json:"policies" yaml:"policies"`
	Sentence  string   `json:"sentence" yaml:"sentence"`
}

// publishedChanges compares what becomes of docker-proxy's connections.
func publishedChanges(before, after *RuleSet, endpoints []*Endpoint, host []netip.Addr) []PublishedChange {
	var all []PublishedChange
	at := Host{Addrs: host}
	was := explainer{rs: before, judge: NewJudge(before), endpoints: endpoints, src: Party{Name: "host", Host: true}, host: &at}
	is := was
	is.rs, is.judge = after, NewJudge(after)
	for _, e := range endpoints {
		for _, pub := range e.Published {
			for _, a := range e.Addrs {
				on := pair{path: Output, to: e, src: is.near(a), dst: a}
				s := Service{Proto: pub.Proto, Port: pub.Port}
				old, _ := was.onward(on, s)
				now, _ := is.onward(on, s)
				if old.Allowed == now.Allowed {
					continue
				}
				c := PublishedChange{Container: e.Name, Network: e.Network, Port: fmt.Sprintf("%s/%d", pub.Proto, pub.HostPort), Service: s.String(), Allowed: now.Allowed, Policies: now.Policies}
				verb, why := "may now reach", "allowed by "+policiesText(c.Policies)
				switch {
				case !c.Allowed:
					verb, why = "may no longer reach", "denied by "+policiesText(c.Policies)
				case len(c.Policies) == 0:
					c.Policies = old.Policies
					why = "it was denied by " + policiesText(c.Policies)
				}
				c.Sentence = fmt.Sprintf("docker-proxy, by which containers and loopback addresses of the host reach its published port %s, %s %s on %s by %s, as the host (entity: host): %s", c.Port, verb, c.Container, c.Network, c.Service, why)
				if !slices.ContainsFunc(all, func(o PublishedChange) bool { return o.Sentence == c.Sentence }) {
					all = append(all, c)
				}
			}
		}
	}
	return all
}
