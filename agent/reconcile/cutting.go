package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/agent/pace"
	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// cutSoon gathers changes of one moment before connections are gone over.
const cutSoon = 50 * time.Millisecond

// cutting ends connections that policies no longer allow, and those that removed
// containers leave behind. It is part of the loop's goroutine.
type cutting struct {
	log   *slog.Logger
	conns Connections
	pace  pace.Pace // it waits for a reason
	// doubted has all connections gone over: rules may have been away for a moment.
	doubted bool
}

func newCutting(log *slog.Logger, conns Connections, now func() time.Time) cutting {
	c := cutting{log: log, conns: conns, pace: pace.Pace{Gather: cutSoon, MinRetry: minFailing, MaxRetry: minFailing, Clock: now}}
	c.pace.Begin()
	return c
}

// host tells of the host's own addresses, routes and bridges.
type host struct {
	addresses func() (map[netip.Addr]bool, error)
	route     func(netip.Addr) (link.Route, error)
	bridges   map[string]int
}

// run does all that is left to do.
func (c *cutting) run(ctx context.Context, left *handover, r *desired.Ruling, host host) {
	c.pace.Begin()
	ended := c.end(ctx, left)
	cut := c.cut(ctx, r, host)
	if cut != nil {
		c.log.Error("connections cannot be gone over; trying again", "error", cut)
	} else {
		c.doubted = false
	}
	if ended != nil || cut != nil {
		c.pace.Failed()
	} else {
		c.pace.Done()
	}
}

// end ends the connections of addresses that are not whose they were.
func (c *cutting) end(ctx context.Context, left *handover) error {
	if len(left.old) == 0 {
		return nil
	}
	n, err := c.conns.End(ctx, left.old)
	if err != nil {
		c.log.Error("connections of containers that are gone cannot be ended; those that have their addresses wait, trying again", "error", err)
		return err
	}
	if n > 0 {
		c.log.Info("connections of containers that are gone were ended", "connections", n, "addresses", len(left.old))
	}
	clear(left.old)
	return nil
}

// cut ends the connections that policies do not allow (any more).
func (c *cutting) cut(ctx context.Context, r *desired.Ruling, host host) error {
	var unknown error
	// Most often there is none to judge.
	judges := sync.OnceValues(func() (*netpolicy.Judge, *desired.FlowBridges) {
		return netpolicy.NewJudge(r.Rules), r.FlowBridges(host.bridges, host.route)
	})
	addresses := sync.OnceValue(func() (local map[netip.Addr]bool) {
		local, unknown = host.addresses()
		return local
	})
	report, err := c.conns.Cut(ctx, c.doubted, func(f iptables.Flow) bool {
		judge, bridges := judges()
		packet := packet(f, addresses())
		if unknown != nil {
			return !f.Noted // nothing changes
		}
		packet.From, packet.To = bridges.Of(f)
		return judge.Walk(packet).Allowed
	})
	if report.Cut > 0 {
		c.log.Info("connections that policies do not allow were cut", "connections", report.Cut)
	}
	if unknown != nil {
		c.doubted = true // all are gone over again
	}
	return errors.Join(err, unknown)
}

// packet is the first packet of a connection, where it met the rules.
func packet(f iptables.Flow, local map[netip.Addr]bool) netpolicy.Packet {
	p := netpolicy.Packet{Path: netpolicy.Forward, Src: f.Src.Addr(), Dst: f.Dst.Addr(), Proto: f.Proto, Port: f.Dst.Port(), ICMPType: int16(f.ICMPType)}
	switch {
	case IsHost(f.Src.Addr(), local):
		p.Path = netpolicy.Output
	case IsHost(f.Dst.Addr(), local):
		p.Path = netpolicy.Input
	}
	return p
}

// IsHost tells whether an address is the host's: one of its devices', or any of loopback.
func IsHost(a netip.Addr, local map[netip.Addr]bool) bool { return local[a] || a.IsLoopback() }
