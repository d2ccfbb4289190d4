package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/agent/pace"
	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

const (
	// cutSoon gathers changes of one moment before connections are gone over.
	cutSoon = 50 * time.Millisecond
	// wholeEvery is how often all connections are gone over without any reason: for those that
	// came into being where no rule looks.
	wholeEvery = 5 * time.Minute
	// cutAgain is after how long connections are listed again for late answers. It doubles with
	// each list.
	cutAgain = 250 * time.Millisecond
)

// cutting ends connections that policies no longer allow, and those that removed
// containers leave behind. It is part of the loop's goroutine.
type cutting struct {
	log   *slog.Logger
	conns Connections
	pace  pace.Pace // it waits for a reason
	// doubted has all connections gone over: rules may have been away for a moment.
	doubted bool
	whole   time.Time     // when all are gone over without any reason
	again   time.Duration // the last wait for late answers
	all     bool          // the list that goes on has all
	cancel  func()        // ends it; nil if none goes on
	// keep judges its connections by a ruling; unknown says why that was not possible.
	keep    func(iptables.Flow) bool
	judged  *desired.Ruling
	unknown error
}

func newCutting(log *slog.Logger, conns Connections, now func() time.Time) cutting {
	c := cutting{log: log, conns: conns, pace: pace.Pace{Gather: cutSoon, MinRetry: minFailing, MaxRetry: minFailing, Clock: now}}
	c.pace.Begin()
	return c
}

// reason has connections listed soon.
func (c *cutting) reason() {
	c.again = 0
	c.pace.Wake()
}

// host tells of the host's own addresses, routes and bridges.
type host struct {
	addresses func() (map[netip.Addr]bool, error)
	route     func(netip.Addr) (link.Route, error)
	bridges   map[string]int
}

// begin has connections listed, beside the loop, if no list goes on: those of old addresses, and
// those that changes may concern.
func (c *cutting) begin(ctx context.Context, left *handover, wake func()) {
	if c.cancel != nil {
		return
	}
	c.pace.Begin()
	ctx, c.cancel = context.WithTimeout(ctx, policeTimeout)
	c.all = c.doubted || !c.pace.Clock().Before(c.whole)
	c.doubted = false
	left.ending, left.old = left.old, map[netip.Addr]bool{}
	if err := c.conns.Begin(ctx, left.ending, c.all, wake); err != nil {
		c.doubted = c.all
		c.over(left, err)
	}
}

// next ends connections of the list that goes on. It tells whether the list is over, and all that
// had to end did.
func (c *cutting) next(left *handover, r *desired.Ruling, host host) bool {
	if c.cancel == nil || r == nil {
		return false
	}
	if c.keep == nil || c.judged != r {
		c.judged, c.keep = r, c.judge(r, host)
	}
	report, done, err := c.conns.Next(c.keep)
	if !done {
		return false
	}
	if report.Ended > 0 {
		c.log.Info("connections of containers that are gone were ended", "connections", report.Ended, "addresses", len(left.ending))
	}
	if report.Cut > 0 {
		c.log.Info("connections that policies do not allow were cut", "connections", report.Cut)
	}
	if err == nil {
		left.ending = nil
	}
	c.doubted = c.doubted || c.unknown != nil // all are gone over again
	c.over(left, errors.Join(err, c.unknown))
	if report.Again {
		c.again = max(2*c.again, cutAgain)
		c.pace.By(c.pace.Clock().Add(c.again))
	} else {
		c.again = 0
	}
	return err == nil
}

// vacant gives which addresses of containers cannot have connections; none where that cannot be
// told.
func (c *cutting) vacant() func(netip.Addr) bool {
	v, err := c.conns.Vacant()
	if err != nil {
		c.log.Error("it cannot be told which addresses have connections; listing them", "error", err)
		return func(netip.Addr) bool { return false }
	}
	return v
}

// judge tells of a connection whether policies allow it. Most often nobody asks.
func (c *cutting) judge(r *desired.Ruling, host host) func(iptables.Flow) bool {
	var local map[netip.Addr]bool
	var judge *netpolicy.Judge
	var bridges *desired.FlowBridges
	ready := sync.OnceValue(func() (err error) {
		judge, bridges = netpolicy.NewJudge(r.Rules), r.FlowBridges(host.bridges, host.route)
		local, err = host.addresses()
		return err
	})
	return func(f iptables.Flow) bool {
		if err := ready(); err != nil {
			c.unknown = err
			return !f.Noted // nothing changes
		}
		packet := packet(f, local)
		packet.From, packet.To = bridges.Of(f)
		return judge.Walk(packet).Allowed
	}
}

// over notes that the list is over. What did not end is tried again.
func (c *cutting) over(left *handover, err error) {
	c.cancel()
	c.cancel, c.keep, c.unknown = nil, nil, nil
	if len(left.ending) > 0 {
		c.log.Error("connections of containers that are gone cannot be ended; those that have their addresses wait, trying again", "error", err)
		maps.Copy(left.old, left.ending)
		left.ending = nil
	} else if err != nil {
		c.log.Error("connections cannot be gone over; trying again", "error", err)
	}
	if err != nil {
		c.pace.Failed()
		return
	}
	if c.pace.Done(); c.all {
		c.whole = c.pace.Clock().Add(wholeEvery)
	}
	c.pace.By(c.whole)
}

// due is when a list is to begin; zero while one goes on.
func (c *cutting) due() time.Time {
	if c.cancel != nil {
		return time.Time{}
	}
	return c.pace.Next()
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
