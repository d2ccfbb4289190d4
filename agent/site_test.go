package agent

import (
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
)

// An unguarded network quarantines too.
func TestUnguardedNetwork(t *testing.T) {
	d := &desire{Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: "n"}, Port: &link.Port{Seen: 7, Index: 3, MasterName: "br-n"},
		Network: docker.Network{Name: "front", Bridge: "br-n"}}}
	op := config.Config{Unguarded: config.Globs{"front"}}
	for answer, open := range map[verdict]bool{refuse: false, leave: false, admit: true} {
		got := watch([]*desire{d}, site{View: link.View{Ports: []link.Port{*d.Port}}, managed: bridges{"br-n": {Index: 9}}, op: &op}, func(*desire) verdict { return answer })
		if len(got) != 1 || got[0].Admitted != open || got[0].Guarded == open {
			t.Errorf("%d: %+v", answer, got)
		}
	}
}
