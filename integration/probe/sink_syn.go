package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// sinkSYN reads TCP packets after the host's filters and before listening sockets.
func sinkSYN(ctx context.Context, addr string, m *meter) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("%w: address: %w", errUsage, err)
	}
	network := "ip6:tcp"
	if at.Addr().Is4() {
		network = "ip4:tcp"
	}
	conn, err := net.ListenPacket(network, at.Addr().String())
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFrom(buf) // without the IP header
			if err != nil {
				return
			}
			if isSYN(buf[:n], at.Port()) {
				m.add(n)
			}
		}
	}()
	return nil
}

// isSYN tells whether a TCP segment is the first one of a connection to a port.
func isSYN(segment []byte, port uint16) bool {
	const syn, ack = 0x02, 0x10
	return len(segment) >= 20 && binary.BigEndian.Uint16(segment[2:]) == port && segment[13]&(syn|ack) == syn
}
