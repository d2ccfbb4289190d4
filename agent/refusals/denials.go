package refusals

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/events"
	"netguard/agent/pace"
	"netguard/agent/reconcile"
	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

const (
	// gather is how long the packets of one flow are collected for one event.
	gather = 200 * time.Millisecond
	// maxFlows bounds how many flows wait for that.
	maxFlows = 1024
)

// denials tells watchers which packets policies refused.
type denials struct {
	log   *slog.Logger
	hub   *events.Hub
	state func() *reconcile.State
	local func() (map[netip.Addr]bool, error) // the host's addresses
	// would logs what monitor mode lets pass; nil if the agent enforces.
	would *wouldDeny

	mu    sync.Mutex
	flows map[denial]uint64
	lost  uint64
	some  pace.Wakeup

	judge *netpolicy.Judge // of the rule set that was asked last
	rules *netpolicy.RuleSet
}

// denial is a flow that was refused, and where.
type denial struct {
	events.Flow
	iptables.Refusal
	path netpolicy.Path
}

// add takes a sample. The goroutine that reads samples calls it, so it never waits.
func (n *denials) add(s events.Sample) {
	refusal, ok := iptables.RefusalOf(s.Prefix)
	if !ok || n.would == nil && !n.hub.Watched() {
		return
	}
	flow, ok := s.Flow()
	if !ok {
		return
	}
	d := denial{flow, refusal, netpolicy.Forward}
	switch {
	case s.In == 0:
		d.path = netpolicy.Output
	case s.Out == 0:
		d.path = netpolicy.Input
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost += s.Missing
	if _, known := n.flows[d]; !known && len(n.flows) >= maxFlows {
		n.lost++
		return
	}
	if n.flows == nil {
		n.flows = map[denial]uint64{}
	}
	n.flows[d]++
	n.some.Call()
}

// run tells what was added, until ctx ends.
func (n *denials) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.some:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(gather):
		}
		n.tell(time.Now())
	}
}

func (n *denials) tell(now time.Time) {
	n.mu.Lock()
	flows, lost := n.flows, n.lost
	n.flows, n.lost = nil, 0
	n.mu.Unlock()
	local, err := n.local()
	if err != nil {
		n.log.Warn("the host's addresses cannot be told; they are shown as external", "error", err)
	}
	s := n.state()
	if s == nil { // nobody can say yet whose addresses these are
		for _, count := range flows {
			lost += count
		}
		n.tellLost(now, lost)
		return
	}
	byAddr := map[netip.Addr]*desired.Endpoint{}
	for _, d := range s.Want.Endpoints {
		for _, a := range slices.Concat(d.Own(), d.Extra) {
			if _, taken := byAddr[a]; !taken {
				byAddr[a] = d
			}
		}
	}
	for d, count := range flows {
		e := control.Event{Time: now.UTC(), Type: control.EventDenied, Count: count, Direction: d.Direction.String(), Service: serviceOf(d.Flow)}
		e.From, e.To = peer(d.Src, byAddr, local), peer(d.Dst, byAddr, local)
		e.Published = published(e, byAddr[d.Dst], d.Flow)
		blamed := d.Src
		if d.Side == netpolicy.Dst {
			blamed = d.Dst
		}
		e.Policies = n.policies(s, d, byAddr[blamed], byAddr[d.Src].Bridge(), byAddr[d.Dst].Bridge())
		if b := byAddr[blamed]; b != nil {
			about(&e, b)
			if b.Port != nil {
				e.Veth = b.Port.Name
			}
		}
		if n.would != nil {
			e.Mode = control.ModeMonitor
			n.would.tell(now, e)
		}
		n.hub.Publish(e)
	}
	n.tellLost(now, lost)
}

func (n *denials) tellLost(now time.Time, lost uint64) {
	if lost > 0 {
		n.hub.Publish(control.Event{Time: now.UTC(), Type: control.EventLost, Count: lost})
	}
}

// policies names the policies that decided. That is the guardrail that refused the packet. If
// none did, it is all policies that isolate the endpoint in this direction: none of them allows
// it.
func (n *denials) policies(s *reconcile.State, d denial, blamed *desired.Endpoint, from, to string) []string {
	if s.Policies == nil || s.Policies.Ruling == nil {
		return nil
	}
	r := s.Policies.Ruling
	if n.rules != r.Rules {
		n.rules, n.judge = r.Rules, netpolicy.NewJudge(r.Rules)
	}
	t := n.judge.Walk(netpolicy.Packet{Path: d.path, Src: d.Src, Dst: d.Dst, From: from, To: to, Proto: d.Proto, Port: d.Port, ICMPType: d.ICMPType})
	if last := len(t.Hits) - 1; !t.Allowed && last >= 0 && t.Hits[last].Policy != "" {
		return []string{t.Hits[last].Policy}
	}
	if blamed == nil {
		return nil
	}
	return r.State(blamed.Key).Policies[d.Direction]
}

// published are the host's ports that lead to the port to which the host itself sent a packet.
func published(e control.Event, to *desired.Endpoint, f events.Flow) []string {
	if e.From.Entity != "host" || to == nil {
		return nil
	}
	var out []string
	for _, p := range to.Container.Ports {
		port := fmt.Sprintf("%s/%d", p.Proto, p.HostPort)
		if p.HostPort != 0 && p.ContainerPort == f.Port && desired.Protocols[p.Proto] == f.Proto && !slices.Contains(out, port) {
			out = append(out, port)
		}
	}
	return out
}

func peer(a netip.Addr, byAddr map[netip.Addr]*desired.Endpoint, local map[netip.Addr]bool) *control.Peer {
	p := &control.Peer{Address: a.String()}
	switch d := byAddr[a]; {
	case d != nil:
		p.Container = d.Container.Name
	case reconcile.IsHost(a, local):
		p.Entity = "host"
	default:
		p.Entity = "external"
	}
	return p
}

// serviceOf names the protocol and port of a flow as policies do.
func serviceOf(f events.Flow) string {
	switch {
	case f.Proto.HasPorts() && f.Port != 0:
		return fmt.Sprintf("%s/%d", f.Proto, f.Port)
	case f.ICMPType != netpolicy.AnyICMPType && (f.Proto == netpolicy.ICMP || f.Proto == netpolicy.ICMPv6):
		return fmt.Sprintf("%s/%d", f.Proto, f.ICMPType)
	}
	return f.Proto.String()
}
