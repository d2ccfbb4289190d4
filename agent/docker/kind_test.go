package docker

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
)

// TestKinds has the engine list what was seen of 20.10 and 28.5.
func TestKinds(t *testing.T) {
	id, step := strings.Repeat("0a", 32), "qxl5n6zvd2w0a9k3f7j1h8s4t"
	for name, c := range map[string]struct {
		network, key, endpoint string
		want                   Kind
	}{
		"a_container":                   {"bridge", id, "web", KindContainer},
		"a_container_named_like_a_step": {"bridge", id, step, KindContainer},
		"a_step_of_BuildKit":            {"bridge", step, step, KindBuild},
		"a_name_that_is_no_namespace's": {"bridge", step, "web", KindUnknown},
		"swarm's_ingress":               {"docker_gwbridge", "ingress-sbox", "gateway_ingress-sbox", KindSwarmIngress},
		"its_name_elsewhere":            {"backend", "ingress-sbox", "gateway_ingress-sbox", KindUnknown},
		"another":                       {"backend", "lb-backend", "backend-endpoint", KindUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(network.Inspect{Name: c.network, Driver: "bridge", ID: id, Containers: map[string]network.EndpointResource{c.key: {Name: c.endpoint}}})
			if got := n.Attachment(c.key); got == nil || got.Kind != c.want {
				t.Errorf("%+v, want %q", n.Endpoints, c.want)
			}
		})
	}
	t.Run("what_is_in_no_namespace_yet_is_nobody's", func(t *testing.T) {
		n := newNetwork(network.Inspect{Name: "bridge", ID: id, Containers: map[string]network.EndpointResource{"ep-" + id: {Name: step}}})
		if len(n.Endpoints) != 0 {
			t.Errorf("%+v", n.Endpoints)
		}
	})
}
