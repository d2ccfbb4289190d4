package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// dial opens the socket; it runs in the namespace.
func (k *knock) dial() (err error) {
	domain, kind, protocol := unix.AF_INET, unix.SOCK_DGRAM, 0
	if k.to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	switch k.protocol {
	case "tcp":
		kind = unix.SOCK_STREAM
	case "icmp":
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_ICMP
		if domain == unix.AF_INET6 {
			protocol = unix.IPPROTO_ICMPV6
		}
	case "sctp":
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_SCTP
	}
	if k.fd, err = unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol); err != nil {
		return err
	}
	if k.source.IsValid() {
		if err := unix.Bind(k.fd, sockaddr(netip.AddrPortFrom(k.source, 0))); err != nil {
			return err
		}
	}
	to := k.to
	if kind == unix.SOCK_RAW {
		to = netip.AddrPortFrom(to.Addr(), 0)
	}
	if err := unix.Connect(k.fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// send sends what has no retransmission of its own. What a firewall says of it,
// ICMP errors for earlier ones, is not the last word.
func (k *knock) send() {
	if k.fd < 0 || k.answered || k.protocol == "tcp" {
		return
	}
	packet := k.word
	switch k.protocol {
	case "icmp":
		packet = k.echo()
	case "sctp":
		packet = k.initiate()
	}
	if _, err := unix.Write(k.fd, packet); err != nil {
		k.problem = err
	}
}

func (k *knock) echo() []byte {
	kind := icmp.Type(ipv4.ICMPTypeEcho)
	if k.to.Addr().Is6() {
		kind = ipv6.ICMPTypeEchoRequest
	}
	m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: int(words.Add(1) & 0xffff), Seq: 1, Data: k.word}}
	raw, err := m.Marshal(nil)
	if err != nil {
		panic(err) // only of our own making
	}
	return raw
}

// initiate is the first packet of an SCTP association, RFC 9260, section 3.3.2.
// The word is in the two fields that are free to choose.
func (k *knock) initiate() []byte {
	p := make([]byte, 32)
	binary.BigEndian.PutUint16(p[0:], 40000+k.to.Port()%20000)
	binary.BigEndian.PutUint16(p[2:], k.to.Port())
	p[12] = 1 // INIT
	p[15] = 20
	copy(p[16:], k.word[8:12])
	binary.BigEndian.PutUint32(p[20:], 1<<16)
	p[25], p[27] = 1, 1
	copy(p[28:], k.word[12:16])
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// receive takes what has come.
func (k *knock) receive() {
	if k.protocol == "tcp" && !k.connected {
		code, err := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err == nil {
			_, err = unix.Write(k.fd, k.word)
		}
		if err != nil {
			k.end(err)
		}
		k.connected = true
		return
	}
	buf := make([]byte, 2048)
	n, err := unix.Read(k.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
	case err != nil && k.protocol != "tcp":
		k.problem = err
	case err != nil || n == 0:
		k.end(errors.Join(errors.New("the connection was closed"), err))
	default:
		// An echo request to itself does not come back here: only answers do.
		if bytes.HasSuffix(buf[:n], k.word) && k.protocol != "sctp" {
			k.answered = true
			k.end(nil)
		}
	}
}
