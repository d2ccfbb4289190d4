package refusals

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/events"
	"netguard/agent/link"
	"netguard/agent/pace"
	"netguard/agent/reconcile"
	"netguard/netpolicy"
)

var (
	webAddr, dbAddr   = netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("172.18.0.3")
	hostAddr, outside = netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("203.0.113.9")
	metadata          = netip.MustParseAddr("169.254.169.254")
)

// newDenials is a host with two containers and policies about them.
func newDenials(t *testing.T) (*denials, control.EventStream) {
	t.Helper()
	catalog := netpolicy.Load([]netpolicy.Source{{Name: "p.yaml", Data: []byte(`
name: only-api
select: {container: db}
ingress: [{from: [{container: api}]}]
---
name: quiet
select: {container: web}
egress: [{to: [{container: db}]}]
---
name: no-metadata
select: {}
deny: [{egress: {to: [{cidr: 169.254.169.254/32}]}}]
`)}})
	if faults := catalog.Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	ports := map[string][]docker.Published{"db": {{HostPort: 15432, ContainerPort: 5432, Proto: "tcp"}, {HostPort: 5353, ContainerPort: 5432, Proto: "udp"},
		{HostPort: 15432, HostIP: outside, ContainerPort: 5432, Proto: "tcp"}}}
	var endpoints []*desired.Endpoint
	for name, a := range map[string]netip.Addr{"web": webAddr, "db": dbAddr} {
		endpoints = append(endpoints, &desired.Endpoint{Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "id-" + name, Network: "n"},
			Container: docker.Container{Name: name, ID: "id-" + name, Ports: ports[name]}, Network: docker.Network{Name: "front"},
			Attachment: docker.Attachment{IPv4: a}, Port: &link.Port{Name: "veth-" + name}}})
	}
	s := &reconcile.State{Want: &desired.State{Endpoints: endpoints}, Policies: &reconcile.PolicyState{Ruling: desired.Rule(&catalog, endpoints)}}
	hub := &events.Hub{}
	watch := hub.Subscribe(nil)
	t.Cleanup(watch.Close)
	return &denials{log: slog.New(slog.DiscardHandler), hub: hub, state: func() *reconcile.State { return s }, some: pace.NewWakeup(),
		local: func() (map[netip.Addr]bool, error) { return map[netip.Addr]bool{hostAddr: true}, nil }}, watch
}

// refusedPacket is the beginning of one of TCP.
func refusedPacket(prefix string, in, out int, src, dst netip.Addr, port uint16) events.Sample {
	p := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0}, src.AsSlice()...)
	p = append(append(p, dst.AsSlice()...), 0x9c, 0x40)
	return events.Sample{Prefix: prefix, In: in, Out: out, Packet: binary.BigEndian.AppendUint16(p, port)}
}

func TestDenials(t *testing.T) {
	container := func(name string, a netip.Addr) *control.Peer {
		return &control.Peer{Container: name, Address: a.String()}
	}
	entity := func(name string, a netip.Addr) *control.Peer {
		return &control.Peer{Entity: name, Address: a.String()}
	}
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		sample events.Sample
		want   control.Event
	}{
		"by_the_receiver": {refusedPacket("netguard-dst-ingress", 5, 5, webAddr, dbAddr, 5432),
			control.Event{Container: "db", Direction: "ingress", From: container("web", webAddr), To: container("db", dbAddr), Service: "tcp/5432", Policies: []string{"only-api"}}},
		"by_the_sender": {refusedPacket("netguard-src-egress", 5, 2, webAddr, outside, 443),
			control.Event{Container: "web", Direction: "egress", From: container("web", webAddr), To: entity("external", outside), Service: "tcp/443", Policies: []string{"quiet"}}},
		"by_a_guardrail": {refusedPacket("netguard-src-egress", 5, 2, webAddr, metadata, 80),
			control.Event{Container: "web", Direction: "egress", From: container("web", webAddr), To: entity("external", metadata), Service: "tcp/80", Policies: []string{"no-metadata"}}},
		"to_the_host": {refusedPacket("netguard-src-egress", 5, 0, webAddr, hostAddr, 22),
			control.Event{Container: "web", Direction: "egress", From: container("web", webAddr), To: entity("host", hostAddr), Service: "tcp/22", Policies: []string{"quiet"}}},
		"from_the_host": {refusedPacket("netguard-dst-ingress", 0, 5, hostAddr, dbAddr, 22),
			control.Event{Container: "db", Direction: "ingress", From: entity("host", hostAddr), To: container("db", dbAddr), Service: "tcp/22", Policies: []string{"only-api"}}},
		"from_the_host_or_its_proxy": {refusedPacket("netguard-dst-ingress", 0, 5, hostAddr, dbAddr, 5432),
			control.Event{Container: "db", Direction: "ingress", From: entity("host", hostAddr), To: container("db", dbAddr), Service: "tcp/5432", Policies: []string{"only-api"}, Published: []string{"tcp/15432"}}},
		"of_nobody_who_is_known": {refusedPacket("netguard-src-egress", 5, 2, outside, metadata, 80),
			control.Event{Direction: "egress", From: entity("external", outside), To: entity("external", metadata), Service: "tcp/80"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, watch := newDenials(t)
			d.add(test.sample)
			d.add(test.sample)
			d.tell(noon)
			have, err := watch.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			want.Time, want.Type, want.Count = noon, control.EventDenied, 2
			if name := want.Container; name != "" {
				want.ID, want.Network, want.Veth = "id-"+name, "front", "veth-"+name
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("are_bounded_and_what_is_lost_is_told", func(t *testing.T) {
		d, watch := newDenials(t)
		for i := range maxFlows + 5 {
			s := refusedPacket("netguard-src-egress", 5, 2, webAddr, outside, uint16(i))
			s.Missing = uint64(i % 2)
			d.add(s)
		}
		if len(d.flows) != maxFlows {
			t.Errorf("%d flows wait", len(d.flows))
		}
		d.tell(noon)
		for {
			e, err := watch.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == control.EventLost {
				if want := uint64(5 + (maxFlows+5)/2); e.Count < want {
					t.Errorf("%d are lost, not %d", e.Count, want)
				}
				return
			}
		}
	})
	t.Run("are_lost_before_the_first_pass_and_that_is_told", func(t *testing.T) {
		d, watch := newDenials(t)
		d.state = func() *reconcile.State { return nil }
		for range 3 {
			d.add(refusedPacket("netguard-src-egress", 5, 2, webAddr, outside, 1))
		}
		d.lost = 4
		d.tell(noon)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if e, err := watch.Next(ctx); err != nil || e.Type != control.EventLost || e.Count != 7 {
			t.Errorf("%+v, %v", e, err)
		}
	})
	t.Run("cost_nothing_while_nobody_watches", func(t *testing.T) {
		d, watch := newDenials(t)
		watch.Close()
		d.add(refusedPacket("netguard-src-egress", 5, 2, webAddr, outside, 1))
		if len(d.flows) > 0 || len(d.some) > 0 {
			t.Error("it was kept")
		}
	})
	t.Run("come_by_themselves_until_the_end", func(t *testing.T) {
		d, watch := newDenials(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.run(ctx) }()
		d.add(events.Sample{Prefix: "netguard mac"})
		d.add(refusedPacket("netguard-src-egress", 5, 2, webAddr, outside, 443))
		if e, err := watch.Next(t.Context()); err != nil || e.Container != "web" {
			t.Error(e, err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
