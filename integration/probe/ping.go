package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

type pinged struct {
	Sent     int       `json:"sent"`
	Received int       `json:"received"`
	RTTMS    []float64 `json:"rtt_ms"`
	Error    string    `json:"error,omitempty"`
}

// ping sends ICMP echo requests one after the other, and exits with 0 if all
// were answered. ADDR may have a zone: fe80::1%eth0.
func ping(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	text := a.text("address")
	count, timeout := a.number("count", 1), a.duration("timeout", time.Second)
	if err := a.done(); err != nil {
		return err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	p, err := newPinger(addr)
	if err != nil {
		return err
	}
	defer p.conn.Close()
	result := pinged{RTTMS: []float64{}}
	for seq := 1; seq <= count && ctx.Err() == nil; seq++ {
		result.Sent++
		rtt, err := p.ping(seq, timeout)
		if err != nil {
			result.Error = err.Error()
			continue
		}
		result.Received++
		result.RTTMS = append(result.RTTMS, ms(rtt))
	}
	print(result)
	if result.Received < count {
		return errNo
	}
	return nil
}

// pinger is an ICMP socket for one destination.
type pinger struct {
	conn            *icmp.PacketConn
	to              net.Addr
	ip              netip.Addr
	request, answer icmp.Type
	protocol, id    int
	datagram        bool
}

// newPinger opens a raw socket (CAP_NET_RAW, which Docker gives), or else a
// datagram socket, which works where ping_group_range allows it.
func newPinger(ip netip.Addr) (*pinger, error) {
	p := &pinger{ip: ip, request: ipv4.ICMPTypeEcho, answer: ipv4.ICMPTypeEchoReply, protocol: 1, id: os.Getpid() & 0xffff}
	raw, datagram, any := "ip4:icmp", "udp4", "0.0.0.0"
	if ip.Is6() {
		p.request, p.answer, p.protocol = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
		raw, datagram, any = "ip6:ipv6-icmp", "udp6", "::"
	}
	p.to = &net.IPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}
	conn, err := icmp.ListenPacket(raw, any)
	if err != nil {
		p.datagram = true
		p.to = &net.UDPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}
		if conn, err = icmp.ListenPacket(datagram, any); err != nil {
			return nil, fmt.Errorf("open ICMP socket: %w", err)
		}
	}
	p.conn = conn
	return p, nil
}

func (p *pinger) ping(seq int, timeout time.Duration) (time.Duration, error) {
	m := icmp.Message{Type: p.request, Body: &icmp.Echo{ID: p.id, Seq: seq, Data: []byte("netguard probe")}}
	raw, err := m.Marshal(nil)
	if err != nil {
		return 0, fmt.Errorf("encode echo request: %w", err)
	}
	begin := time.Now()
	p.conn.SetReadDeadline(begin.Add(timeout))
	if _, err := p.conn.WriteTo(raw, p.to); err != nil {
		return 0, fmt.Errorf("send echo request: %w", err)
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			return 0, fmt.Errorf("read echo reply: %w", err)
		}
		m, err := icmp.ParseMessage(p.protocol, buf[:n])
		if err != nil || m.Type != p.answer {
			continue
		}
		// The kernel gives a datagram socket its own id.
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.Seq == seq && (p.datagram || echo.ID == p.id) {
			return time.Since(begin), nil
		}
	}
}
