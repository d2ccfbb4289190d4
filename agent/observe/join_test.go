package observe

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
)

// host is a Docker and a kernel with the network n on bridge br0.
type host struct {
	view  docker.View
	ports []*link.Port
	asked []string // for their namespaces
	full  int      // readings of everything
}

func (h *host) TakeHint() docker.Hint { return docker.Hint{} }

func (h *host) Refresh(_ context.Context, hint docker.Hint) (docker.View, error) {
	if hint.Full {
		h.full++
	}
	return h.view, nil
}

func (h *host) Sandbox(_ context.Context, id string) (string, error) {
	h.asked = append(h.asked, id)
	return "", nil
}

func (h *host) Take() (link.Hint, link.View) {
	return link.Hint{}, link.View{Ports: h.ports, Bridges: map[string]int{"br0": 3}}
}

func (h *host) Snapshot() []*link.Port { return h.ports }

func (h *host) Seen() uint64 { return uint64(len(h.ports)) }

func (h *host) NSIDOf(string) (int, error) { return 2, nil }

// list makes Docker list containers, each with a MAC.
func (h *host) list(macs map[string]net.HardwareAddr) {
	h.view = docker.View{Networks: map[string]docker.Network{"n": {ID: "n", Name: "n", Driver: "bridge", Bridge: "br0"}}}
	for id, mac := range macs {
		dockertest.Put(&h.view, docker.Container{ID: id, Name: id, State: "running"})
		dockertest.Attach(&h.view, "n", docker.Attachment{ID: id, MAC: mac})
	}
}

// plug adds a port. Its number is its namespace too.
func (h *host) plug(mac net.HardwareAddr) {
	n := len(h.ports) + 1
	h.ports = append(slices.Clip(h.ports), &link.Port{Index: 10 + n, Seen: uint64(n), NSID: n, MasterName: "br0", Master: 3, PeerMAC: mac})
}

// TestTakeAsks: what a snapshot lacks, the observer asks Docker for by itself.
func TestTakeAsks(t *testing.T) {
	now := time.Unix(1e9, 0)
	h := &host{}
	o := New(h, h, slog.New(slog.DiscardHandler), func() time.Time { return now }, func() {})
	woken := func() bool {
		select {
		case <-o.Wakeup:
			return true
		default:
			return false
		}
	}
	// until lets time pass while the observer works.
	until := func(end time.Time) {
		for next := o.Turn(t.Context()); !next.After(end); next = o.Turn(t.Context()) {
			now = next
		}
		now = end
	}
	h.list(nil)
	until(now.Add(time.Minute))
	h.list(map[string]net.HardwareAddr{"a": macA})
	h.plug(macA)
	h.plug(macA) // one of the two lies
	until(now.Add(time.Second))
	h.asked = nil
	if _, s := o.Take(); len(s.Joined) != 1 || !s.Joined[0].Contested || !woken() {
		t.Fatalf("two ports with one MAC: %+v, and the observer is not woken", s.Joined)
	}
	until(now)
	if !slices.Equal(h.asked, []string{"a"}) {
		t.Errorf("asked for the namespaces of %v", h.asked)
	}
	_, s := o.Take()
	if s.Joined[0].Port != h.ports[1] || woken() {
		t.Fatalf("the namespace is known, and the port is %+v", s.Joined[0].Port)
	}
	h.asked = nil
	until(now.Add(5 * time.Second))
	if len(h.asked) > 0 {
		t.Errorf("asked again for %v", h.asked)
	}

	h.list(nil)
	until(now.Add(30 * time.Second)) // Docker tells nothing of it
	h.full = 0
	_, s = o.Take()
	if len(s.Unlisted) != 1 || len(s.Joined) != 1 || s.Joined[0].Port != h.ports[1] || !woken() {
		t.Fatalf("not listed, and its port is there: %+v", s)
	}
	until(now.Add(LackingFor))
	if h.full != 1 || s.MissingLong(now) != 1 {
		t.Errorf("everything was read %d times, %d are missing", h.full, s.MissingLong(now))
	}
	again := s.Unlisted
	if _, s = o.Take(); len(s.Unlisted) != len(again) {
		t.Errorf("unlisted since %v, was %v", s.Unlisted, again)
	}
	for key, since := range again {
		if !s.Unlisted[key].Equal(since) {
			t.Errorf("unlisted since %v, was %v", s.Unlisted[key], since)
		}
	}
	h.ports = h.ports[:1]
	if _, s = o.Take(); len(s.Joined)+len(s.Unlisted) != 0 {
		t.Errorf("its port is gone, and there is %+v", s)
	}
}
