package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type framesHeard struct {
	Frames int `json:"frames"`
}

type heardFrame struct {
	AtMS float64 `json:"at_ms"`
	Hex  string  `json:"hex"`
}

// frameListen prints the incoming frames that pass the filter, one a line, and their
// number at the end. It prints "listening" when it has begun.
func frameListen(ctx context.Context, a *arguments) error {
	iface, filter, duration := a.text("interface"), a.text("filter"), a.duration("duration")
	if err := a.done(); err != nil {
		return err
	}
	matches, err := parseFilter(filter)
	if err != nil {
		return err
	}
	fd, err := openPacket(iface, unix.ETH_P_ALL)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := promiscuous(fd, iface); err != nil {
		return err
	}
	fmt.Println(`{"listening":true}`)
	begin := time.Now()
	var total framesHeard
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	for ctx.Err() == nil && time.Since(begin) < duration {
		n, on, _, from, err := unix.Recvmsg(fd, buf[4:], oob, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue // the socket's timeout: check the time
		}
		if err != nil {
			return fmt.Errorf("hear frames on %s: %w", iface, err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		data := withTag(buf, n, oob[:on])
		if matches(data) {
			total.Frames++
			print(heardFrame{AtMS: ms(time.Since(begin)), Hex: hex.EncodeToString(data)})
		}
	}
	print(total)
	return nil
}

func promiscuous(fd int, iface string) error {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", iface, err)
	}
	member := &unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, member); err != nil {
		return fmt.Errorf("hear everything on %s: %w", iface, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return fmt.Errorf("ask for VLAN tags on %s: %w", iface, err)
	}
	wait := unix.Timeval{Usec: 20_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return fmt.Errorf("set time-out on %s: %w", iface, err)
	}
	return nil
}

// withTag returns the frame in buf, which begins at byte 4, as it was on the wire. The
// kernel removes the outer VLAN tag and puts it into the auxiliary data.
func withTag(buf []byte, n int, oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return buf[4 : 4+n]
	}
	for _, m := range messages {
		// struct tpacket_auxdata: the status first, tci at 16, tpid at 18.
		if m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 || n < 14 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tci, tpid := binary.NativeEndian.Uint16(m.Data[16:]), binary.NativeEndian.Uint16(m.Data[18:])
		if status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
			tpid = 0x8100
		}
		copy(buf[0:12], buf[4:16])
		binary.BigEndian.PutUint16(buf[12:], tpid)
		binary.BigEndian.PutUint16(buf[14:], tci)
		return buf[:n+4]
	}
	return buf[4 : 4+n]
}

// parseFilter reads a filter: conditions that must all be true, separated by commas.
// "any" is no condition.
//
//	ethertype=0806  src=02:42:0a:07:00:02  dst=…  contains=HEX
func parseFilter(text string) (func([]byte) bool, error) {
	var conditions []func([]byte) bool
	for _, word := range strings.Split(text, ",") {
		if word == "any" {
			continue
		}
		key, value, _ := strings.Cut(word, "=")
		want, err := hex.DecodeString(strings.ReplaceAll(value, ":", ""))
		if err != nil || len(want) == 0 {
			return nil, fmt.Errorf("%w: filter %q: the value is not hexadecimal", errUsage, word)
		}
		switch key {
		case "dst":
			conditions = append(conditions, func(f []byte) bool { return len(f) >= 6 && bytes.Equal(f[:6], want) })
		case "src":
			conditions = append(conditions, func(f []byte) bool { return len(f) >= 12 && bytes.Equal(f[6:12], want) })
		case "ethertype":
			conditions = append(conditions, func(f []byte) bool { return len(f) >= 14 && bytes.Equal(f[12:14], want) })
		case "contains":
			conditions = append(conditions, func(f []byte) bool { return bytes.Contains(f, want) })
		default:
			return nil, fmt.Errorf("%w: filter %q: expected ethertype, src, dst or contains", errUsage, word)
		}
	}
	return func(f []byte) bool {
		for _, matches := range conditions {
			if !matches(f) {
				return false
			}
		}
		return true
	}, nil
}
