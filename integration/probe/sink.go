package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sunk is what arrived in one interval, or in total (Total).
type sunk struct {
	// AtMS is the interval's end, or the last arrival, after the first arrival.
	AtMS  float64 `json:"at_ms"`
	Bytes int64   `json:"bytes"`
	Reads int64   `json:"reads"` // UDP: packets
	// GapMS is the longest time between two arrivals.
	GapMS float64 `json:"gap_ms"`
	Total bool    `json:"total,omitempty"`
	// First is the first arrival's time, in nanoseconds since 1970.
	First int64 `json:"first_unix_ns,omitempty"`
}

// sink receives everything. It prints a line for each interval with an arrival. It
// prints the total when it is ended, or when nothing has arrived for the time QUIET
// after the last arrival. It prints "sinking" when it listens.
//
// With udp, the address may be a multicast group, which it joins. With syn, it counts
// TCP's first packets to a port that the host accepts, with or without a listener.
func sink(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	protocol, addr := a.oneOf("protocol", "tcp", "udp", "syn"), a.text("address")
	m := meter{interval: a.duration("interval", 100*time.Millisecond)}
	quiet := a.duration("quiet", 0)
	if err := a.done(); err != nil {
		return err
	}
	listen := map[string]func(context.Context, string, *meter) error{"tcp": sinkTCP, "udp": sinkUDP, "syn": sinkSYN}[protocol]
	if err := listen(ctx, addr, &m); err != nil {
		return err
	}
	fmt.Println(`{"sinking":true}`)
	tick := time.NewTicker(m.interval)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-tick.C:
			over = quiet > 0 && m.silence() > quiet
		case <-ctx.Done():
			over = true
		}
		if s, ok := m.turn(); ok {
			print(s)
		}
	}
	print(m.total())
	return nil
}

func sinkTCP(ctx context.Context, addr string, m *meter) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				drain(conn, m)
			}()
		}
	}()
	return nil
}

func sinkUDP(ctx context.Context, addr string, m *meter) error {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return err
	}
	var conn *net.UDPConn
	if at.IP.IsMulticast() {
		var on *net.Interface // nil: the kernel chooses
		if at.Zone != "" {
			if on, err = net.InterfaceByName(at.Zone); err != nil {
				return fmt.Errorf("find interface %s: %w", at.Zone, err)
			}
		}
		conn, err = net.ListenMulticastUDP("udp", on, at)
	} else {
		conn, err = net.ListenUDP("udp", at)
	}
	if err != nil {
		return err
	}
	// A large buffer: the network may lose packets, but not this socket.
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) != nil {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<20)
			}
		})
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	go drain(conn, m)
	return nil
}

func drain(conn interface{ Read([]byte) (int, error) }, m *meter) {
	buf := make([]byte, 128<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			m.add(n)
		}
		if err != nil {
			return
		}
	}
}

// meter counts arrivals.
type meter struct {
	interval time.Duration

	mu          sync.Mutex
	first, last time.Time
	now, all    sunk
}

func (m *meter) add(n int) {
	at := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		m.first, m.last = at, at
	}
	gap := ms(at.Sub(m.last))
	m.last = at
	for _, s := range []*sunk{&m.now, &m.all} {
		s.Bytes += int64(n)
		s.Reads++
		s.GapMS = max(s.GapMS, gap)
	}
}

// turn ends an interval.
func (m *meter) turn() (sunk, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.now
	m.now = sunk{}
	s.AtMS = ms(time.Since(m.first))
	return s, s.Reads > 0
}

// silence is the time since the last arrival; none before the first.
func (m *meter) silence() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		return 0
	}
	return time.Since(m.last)
}

func (m *meter) total() sunk {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.all
	s.Total = true
	if !m.first.IsZero() {
		s.AtMS, s.First = ms(m.last.Sub(m.first)), m.first.UnixNano()
	}
	return s
}
