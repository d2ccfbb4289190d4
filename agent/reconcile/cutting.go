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
	// cutSoon gathers changes of one moment before connections are listed.
	cutSoon = 50 * time.Millisecond
	// wholeEvery is how often all connections are listed without any reason: some may have
	// begun where no rule looks.
	wholeEvery = 5 * time.Minute
	// cutAgain is the wait before connections are listed again, because late answers may have
	// made new ones. It doubles with each such list.
	cutAgain = 250 * time.Millisecond
)

// cutting ends connections that policies no longer allow, and those that removed
// containers leave behind. It is part of the loop's goroutine.
type cutting struct {
	log   *slog.Logger
	conns Connections
	pace  pace.Pace // of lists of connections
	// doubted makes the next list have all connections: rules may have been missing for a
	// moment.
	doubted bool
	whole   time.Time     // when the next list has all connections, without any reason
	again   time.Duration // the last wait for late answers
	all     bool          // the running list has all connections
	cancel  func()        // ends the running list; nil if none is running
	// keep judges the connections of the list by the ruling in judged. unknown says why that
	// was not possible.
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

// host gives the host's own addresses, its routes and its bridges.
type host struct {
	addresses func() (map[netip.Addr]bool, error)
	route     func(netip.Addr) (link.Route, error)
	bridges   map[string]int
}

// begin starts a list of connections in another goroutine, unless one is running. It has the
// connections of old addresses, and those that changes may concern.
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

// next ends connections of the running list. It tells whether the list is over, and either had no
// error or ended the connections of some address.
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
	ended := left.end(err)
	c.doubted = c.doubted || c.unknown != nil // then the next list has all
	c.over(left, errors.Join(err, c.unknown))
	if report.Again {
		c.again = max(2*c.again, cutAgain)
		c.pace.By(c.pace.Clock().Add(c.again))
	} else {
		c.again = 0
	}
	return err == nil || ended
}

// vacant tells which addresses of containers cannot have connections. After an error it says
// so of none.
func (c *cutting) vacant() func(netip.Addr) bool {
	v, err := c.conns.Vacant()
	if err != nil {
		c.log.Error("it cannot be told which addresses have connections; listing them", "error", err)
		return func(netip.Addr) bool { return false }
	}
	return v
}

// judge gives a function that tells whether policies allow a connection. The function gets its
// data at the first call, because most often nobody calls it.
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
			return !f.Noted // keeps a connection, and keeps a note
		}
		packet := packet(f, local)
		packet.From, packet.To = bridges.Of(f)
		return judge.Walk(packet).Allowed
	}
}

// over notes that the list is over. Connections that did not end are tried again.
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

// due is when the next list begins; zero while one is running.
func (c *cutting) due() time.Time {
	if c.cancel != nil {
		return time.Time{}
	}
	return c.pace.Next()
}

// packet gives the first packet of a connection, on the path where it met the rules.
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
