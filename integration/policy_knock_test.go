package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	. "netguard/integration/harness"
)

// spot is a network namespace in which connections begin and end.
type spot struct {
	name string
	Netns
}

// knock is one connection that is tried: opened, asked, answered.
type knock struct {
	from     *spot
	protocol string // tcp, udp, icmp (echo requests) or sctp (its first packet)
	to       netip.AddrPort
	source   netip.Addr // the kernel's choice if zero
	what     string     // for messages
	open     bool       // what is wanted

	word      []byte // tells this connection from all others
	fd        int    // -1 when it has ended
	connected bool
	answered  bool
	problem   error
}

const (
	// closedFor is how long nothing must come of a connection that is to be
	// refused, after all that are to be open have been answered.
	closedFor = 300 * time.Millisecond
	// openWithin is far more than an answer takes.
	openWithin = 4 * time.Second
	// again is when what has no retransmission of its own is sent again.
	again = 100 * time.Millisecond
)

// wordLen is the length of every word.
const wordLen = 16

var words atomic.Uint64

// heard are the words that have arrived at a server.
var heard sync.Map

// came tells whether anything of the connection reached a server.
func (k *knock) came() bool { _, ok := heard.Load(string(k.word)); return ok || k.answered }

func (k *knock) String() string {
	end := "no answer"
	switch {
	case k.answered:
		end = "answered"
	case k.came():
		end = "arrived, and the answer did not"
	case k.problem != nil:
		end = k.problem.Error()
	}
	return fmt.Sprintf("%s (%s, %s %s): %s", k.what, k.from.name, k.protocol, k.to, end)
}

// right tells whether what came of it is what was wanted.
func (k *knock) right() bool {
	if k.open {
		return k.answered || k.protocol == "sctp" && k.came()
	}
	return !k.came()
}

// knockAll tries all at once and returns those that did not go as wanted.
func knockAll(t testing.TB, all []*knock) (wrong []*knock) {
	t.Helper()
	places := map[*spot][]*knock{}
	for _, k := range all {
		k.word, k.fd, k.connected, k.answered, k.problem = fmt.Appendf(nil, "%016x", words.Add(1)), -1, false, false, nil
		places[k.from] = append(places[k.from], k)
	}
	defer func() {
		for _, k := range all {
			k.end(nil)
		}
	}()
	for from, ks := range places {
		err := from.Do(func() error {
			for _, k := range ks {
				if err := k.dial(); err != nil {
					k.end(err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	var sent, quiet time.Time // quiet: since when all that is to be open is
	for {
		if time.Since(sent) >= again {
			sent = time.Now()
			for _, k := range all {
				k.send()
			}
		}
		listenTo(t, all)
		waiting := slices.ContainsFunc(all, func(k *knock) bool { return k.open && !k.right() })
		if waiting {
			quiet = time.Time{}
		} else if quiet.IsZero() {
			quiet = time.Now()
		}
		if !quiet.IsZero() && time.Since(quiet) >= closedFor || time.Since(begin) > openWithin {
			break
		}
	}
	for _, k := range all {
		if !k.right() {
			wrong = append(wrong, k)
		}
	}
	return wrong
}

// mustKnock ends the test with every connection that did not go as wanted.
func mustKnock(t testing.TB, all []*knock) {
	t.Helper()
	if wrong := knockAll(t, all); len(wrong) > 0 {
		t.Fatalf("%s", describe(all, wrong))
	}
}

func describe(all, wrong []*knock) string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%d of %d connections went wrong:", len(wrong), len(all))
	for i, k := range wrong {
		if i == 20 {
			fmt.Fprintf(&out, "\n  and %d more", len(wrong)-i)
			break
		}
		fmt.Fprintf(&out, "\n  open = %t, want %t: %s", !k.open, k.open, k)
	}
	return out.String()
}

// listenTo waits for a moment for anything to happen.
func listenTo(t testing.TB, all []*knock) {
	t.Helper()
	var polls []unix.PollFd
	var of []*knock
	for _, k := range all {
		if k.fd < 0 {
			continue
		}
		want := int16(unix.POLLIN)
		if k.protocol == "tcp" && !k.connected {
			want = unix.POLLOUT
		}
		polls, of = append(polls, unix.PollFd{Fd: int32(k.fd), Events: want}), append(of, k)
	}
	n, err := unix.Poll(polls, 20)
	if err != nil && !errors.Is(err, unix.EINTR) {
		t.Fatalf("poll: %v", err)
	}
	if n <= 0 {
		return
	}
	for i, p := range polls {
		if p.Revents != 0 {
			of[i].receive()
		}
	}
}

func (k *knock) end(why error) {
	if k.fd >= 0 {
		_ = unix.Close(k.fd)
		k.fd = -1
	}
	if why != nil {
		k.problem = why
	}
}

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
