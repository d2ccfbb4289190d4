package reconcile

import (
	"net/netip"
	"testing"
	"time"

	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

// refuse makes steps fail.
func (w *world) refuse(steps ...string) {
	w.fails = func(at string, _ int) error {
		for _, step := range steps {
			if at == step {
				return errInjected
			}
		}
		return nil
	}
}

// TestAdmittedByRetry: a port that the guard opens when it tries again stays open when later rules
// cannot be written.
func TestAdmittedByRetry(t *testing.T) {
	w := newWorld(t)
	w.come("front", service(0))
	w.policies(1)
	w.run(12 * time.Second) // no pass follows because of its age
	w.docker.slow = 50 * time.Millisecond
	c := w.come("front", service(2))
	w.run(20 * time.Millisecond) // the guard knows the port
	w.refuse("guard commit")
	w.run(50 * time.Millisecond)
	if w.fails, w.docker.slow = nil, 0; w.guard.Sends(c.port.Index) {
		t.Fatal("it sends, though nothing was written")
	}
	for tries := 0; !w.guard.Sends(c.port.Index); tries++ {
		if w.run(50 * time.Millisecond); tries > 100 {
			t.Fatal("the guard does not try again")
		}
	}
	w.refuse("rules write")
	w.policies(2)
	if w.run(5 * time.Second); !w.guard.Sends(c.port.Index) {
		t.Error("it was admitted, and is cut off because new rules cannot be written")
	}
	w.settle(90 * time.Second)
	w.check()
}

// TestAdmittedAfterTheOther: a container with the MAC of an older one is closed until the older one
// is gone and its connections have ended. Docker reports the end of the older one before the kernel.
func TestAdmittedAfterTheOther(t *testing.T) {
	w := newWorld(t)
	first := w.come("front", nil)
	w.run(time.Second)
	second := w.come("front", nil)
	second.port.PeerMAC = first.port.PeerMAC
	if w.run(3 * time.Second); !w.guard.Sends(first.port.Index) || w.guard.Sends(second.port.Index) {
		t.Fatalf("the first sends: %t; the second: %t", w.guard.Sends(first.port.Index), w.guard.Sends(second.port.Index))
	}
	shared := guard.MAC(first.port.PeerMAC).LinkLocal()
	w.rules.Connect(iptables.Flow{Src: netip.AddrPortFrom(shared, uint16(first.Created)), Dst: netip.MustParseAddrPort("[fe80::1]:443"),
		Dialled: netip.MustParseAddrPort("[fe80::1]:443"), Proto: netpolicy.TCP})
	w.listTakes = time.Second
	w.docker.hides = first.ID
	w.ask()
	w.run(100 * time.Millisecond)
	w.leave(first)
	if w.run(300 * time.Millisecond); w.guard.Sends(second.port.Index) {
		t.Error("it sends while connections of the other still end")
	}
	if w.run(3 * time.Second); !w.guard.Sends(second.port.Index) || len(w.rules.Connections()) > 0 {
		t.Errorf("after that it sends: %t; connections: %v", w.guard.Sends(second.port.Index), w.rules.Connections())
	}
	w.settle(90 * time.Second)
	w.check()
}

// TestAdmittedWithoutItsProgram: a port that the guard could not open stays closed while the rules
// are not in force.
func TestAdmittedWithoutItsProgram(t *testing.T) {
	w := newWorld(t)
	w.come("front", service(0))
	w.policies(1)
	w.run(2 * time.Second)
	c := w.come("front", service(2))
	w.refuse("guard attach")
	if w.run(2 * time.Second); w.guard.Sends(c.port.Index) {
		t.Fatal("it sends without its program")
	}
	w.refuse("rules write")
	w.policies(2)
	if w.run(5 * time.Second); w.guard.Sends(c.port.Index) {
		t.Error("it sends, and its rules are not in force")
	}
	w.settle(90 * time.Second)
	w.check()
}
