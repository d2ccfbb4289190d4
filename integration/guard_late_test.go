package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// lateStage is where a container has the kernel write into its packets after they were
// judged.
type lateStage struct {
	e                *Engine
	attacker, victim *actor
	raw              *attack.Port // of the attacker
	outside          *attack.Port
	gate             attack.MAC
}

const (
	latePolicies = `name: web
select: {container: web}
ingress:
  - from: [{container: mallory}]
    ports: [tcp/80, udp/9000]
---
name: mallory
select: {container: mallory}
egress:
  - to: [{container: web}]
  - to: [{entity: external}]
    ports: [udp/53]
`
	seenPort, wantPort = 80, 5432
)

// redirected tells whether the attacker has an answer on a port that policies deny, when
// all that its own kernel sends there goes again in other clothes.
func (l *lateStage) redirected(t *testing.T, address, timeout string) bool {
	t.Helper()
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			frame, err := l.attacker.port.Sent(time.Now().Add(20 * time.Millisecond))
			if err != nil {
				continue // nothing was sent
			}
			for _, f := range attack.Redirect(frame, wantPort, seenPort) {
				if err := l.raw.Send(f); err != nil {
					done <- fmt.Errorf("send fragment: %w", err)
					return
				}
			}
		}
	}()
	got := l.attacker.Inside().Connect("tcp", address, timeout)
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return got.Result == "answered"
}

// leaves tells whether a datagram that policies judge to go to port 53 leaves the host to
// another one, where no checksum is left to the uplink.
func (l *lateStage) leaves(t *testing.T, from, to netip.Addr) bool {
	t.Helper()
	number := frameNumber.Add(1)
	mark, last := fmt.Appendf(nil, "..<late %d>", number), fmt.Appendf(nil, "..<after %d>", number)
	datagram := func(mark []byte) ([]byte, uint16) {
		if from.Is6() {
			f := attack.Ether(l.gate, l.attacker.MAC, attack.EtherIPv6, attack.UDP6(netip.AddrPortFrom(from, 9), netip.AddrPortFrom(to, 53), mark))
			return f, 54
		}
		return attack.Ether(l.gate, l.attacker.MAC, attack.EtherIPv4, attack.UDP4(netip.AddrPortFrom(from, 9), netip.AddrPortFrom(to, 53), mark)), 34
	}
	evil, start := datagram(mark)
	attack.SumTo(evil[start:], 8, wantPort)
	honest, _ := datagram(last)
	l.outside.Drain()
	if err := l.raw.Send(attack.Late(start, 2, evil), attack.Late(start, 6, honest)); err != nil {
		t.Fatal(err)
	}
	left := false
	for until := deadline(); ; {
		f, err := l.outside.Receive(until)
		if err != nil {
			t.Fatalf("not even what is allowed left: %v", err)
		}
		text := string(f)
		if strings.Contains(text, string(last[2:])) {
			return left
		}
		if strings.Contains(text, string(mark[2:])) {
			left = left || binary.BigEndian.Uint16(f[start+2:]) != 53
		}
	}
}

// open tells for each way whether it is open.
func (l *lateStage) open(t *testing.T, timeout string) map[string]bool {
	t.Helper()
	return map[string]bool{
		"fragments of IPv4": l.redirected(t, l.victim.Addr("net", wantPort), timeout),
		"fragments of IPv6": l.redirected(t, l.victim.Addr6("net", wantPort), timeout),
		"routed IPv4":       l.leaves(t, l.attacker.IPv4, OutsideIPv4),
		"routed IPv6":       l.leaves(t, l.attacker.IPv6, OutsideIPv6),
	}
}

// TestLateChecksums has the kernel write the port, after policies have judged a packet.
func TestLateChecksums(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6(), WithOutside())
	network := e.Network("net", Subnet("198.18.90.0/24"), Subnet("fd00:90::/64"))
	victim := e.Run("web", On("net"), Doing("serve", "tcp", fmt.Sprintf(":%d", wantPort), fmt.Sprintf(":%d", seenPort), "udp", ":9000"))
	mallory := e.Run("mallory", On("net"))
	l := &lateStage{e: e, attacker: enter(t, mallory, "net"), victim: enter(t, victim, "net")}
	l.gate = gateway(t, e, network, mallory).MAC
	name := mallory.Interface("net")
	err := mallory.Inside().Do(func() (err error) { l.raw, err = attack.OpenLate(name); return err })
	if err == nil {
		err = e.Outside.Do(func() (err error) { l.outside, err = attack.Open("eth0"); return err })
	}
	if err == nil {
		err = e.Do(func() error { return withoutChecksums(Uplink) })
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.raw.Close)
	t.Cleanup(l.outside.Close)
	kept := func(a *Agent, by string) {
		t.Helper()
		a.AwaitStatus("packets are kept as they were judged by: "+by, func(s control.Status) bool {
			return s.InSync && AllAdmitted(s) && s.Guard.Checksum == by && len(s.Endpoints) == 2
		})
		for _, addr := range []string{victim.Addr("net", seenPort), victim.Addr6("net", seenPort)} {
			mallory.Inside().CanReach("tcp", addr)
		}
	}
	counted := func(a *Agent) uint64 { return violations(t, a, l.attacker)[0].Checksum }
	before := kernel(e)

	// A kernel that takes no program.
	faulty := e.NewAgent(Policy("late.yaml", latePolicies), Config("guard: {fragments: pass}\n"))
	faulty.Binary = e.FaultyBinary()
	faulty.Env = []string{"NETGUARD_FAULT=error:checksum program:1", "NETGUARD_FAULT_LOG=" + filepath.Join(t.TempDir(), "writes")}
	faulty.Start()
	t.Run("without_anything", func(t *testing.T) {
		kept(faulty, control.ByNothing)
		// The minute is over in which answers are judged like what they answer.
		e.Output("ipset", "flush", "ng4-began")
		e.Output("ipset", "flush", "ng6-began")
		for _, addr := range []string{victim.Addr("net", wantPort), victim.Addr6("net", wantPort)} {
			mallory.Inside().CannotReach("tcp", addr)
		}
		for way, open := range l.open(t, "5s") {
			if !open {
				t.Errorf("%s: the attack fails by itself: it proves nothing", way)
			}
		}
	})
	t.Run("without_the_program_fragments_are_refused", func(t *testing.T) {
		faulty.WriteConfig("")
		kept(faulty, control.ByFragments)
		was := counted(faulty)
		for way, open := range l.open(t, "500ms") {
			if routed := strings.HasPrefix(way, "routed"); open != routed {
				t.Errorf("%s: open is %t", way, open)
			}
		}
		if n := counted(faulty); n <= was {
			t.Errorf("counted %d, was %d", n, was)
		}
		for _, said := range []string{faulty.CLI("status", "-o", "wide").Stdout, faulty.CLI("doctor").Stdout} {
			if !strings.Contains(said, "fragments") {
				t.Errorf("no word of fragments in:\n%s", said)
			}
		}
	})
	faulty.Kill()

	a := e.NewAgent(Policy("late.yaml", latePolicies))
	a.Start()
	t.Run("with_the_program", func(t *testing.T) {
		kept(a, control.ByProgram)
		refused := func(when string) {
			t.Helper()
			was := counted(a)
			for way, open := range l.open(t, "500ms") {
				if open {
					t.Errorf("%s: %s is open", when, way)
				}
			}
			// Two fragments, over each family, and a datagram.
			if n := counted(a); n < was+6 {
				t.Errorf("%s: counted %d, was %d", when, n, was)
			}
		}
		refused("with an agent")
		a.Kill()
		if l.redirected(t, l.victim.Addr("net", wantPort), "500ms") {
			t.Error("with an agent that is dead it is open")
		}
		a.Start()
		kept(a, control.ByProgram)
		refused("with another agent")
	})
	t.Run("honest_datagrams_of_many_fragments_pass", func(t *testing.T) {
		for _, addr := range []string{victim.Addr("net", 9000), victim.Addr6("net", 9000)} {
			err := mallory.Inside().Do(func() error { return echoed(addr, 20000) })
			if err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		}
	})
	if r := a.CLI("cleanup"); !r.OK() {
		t.Fatalf("cleanup: %s", r)
	}
	if d := cmp.Diff(before, kernel(e)); d != "" {
		t.Errorf("a clean-up leaves something:\n%s", d)
	}
}

// echoed sends a datagram to an echo server and waits for it to come back.
func echoed(addr string, size int) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(deadline())
	sent, got := bytes.Repeat([]byte("0123456789"), size/10), make([]byte, 1<<16)
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	n, err := conn.Read(got)
	if err == nil && !bytes.Equal(sent, got[:n]) {
		err = errors.New("what came back is something else")
	}
	return err
}

// withoutChecksums has the kernel fill checksums in before a device gets a packet, as it
// does where the device cannot.
func withoutChecksums(device string) error {
	const setTxChecksums = 0x17
	value := struct{ command, data uint32 }{setTxChecksums, 0}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return fmt.Errorf("switch checksums of %s off: %w", device, errno)
	}
	return nil
}
