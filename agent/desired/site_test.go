package desired

import (
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
)

// An unguarded network quarantines too.
func TestUnguardedNetwork(t *testing.T) {
	d := &Endpoint{Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: "n"}, Port: &link.Port{Seen: 7, Index: 3, MasterName: "br-n"},
		Network: docker.Network{Name: "front", Bridge: "br-n"}}}
	op := config.Config{Unguarded: config.Globs{"front"}}
	for answer, open := range map[Verdict]bool{Refuse: false, Leave: false, Admit: true} {
		got := GuardPorts([]*Endpoint{d}, Site{View: link.View{Ports: []*link.Port{d.Port}}, Managed: Bridges{"br-n": {Index: 9}}, Op: &op}, func(*Endpoint) Verdict { return answer })
		if len(got) != 1 || got[0].Admitted != open || got[0].Guarded == open {
			t.Errorf("%d: %+v", answer, got)
		}
	}
}
