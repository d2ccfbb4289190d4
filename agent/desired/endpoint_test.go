package desired

import (
	"cmp"
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/shaper"
)

func container(labels ...string) docker.Container {
	c := docker.Container{Name: "web", Labels: map[string]string{}}
	for i := 0; i < len(labels); i += 2 {
		c.Labels[labels[i]] = labels[i+1]
	}
	return c
}

// desired gives what every endpoint should have, worked out for the first time.
func desired(endpoints []*endpoint.Endpoint, cfg *config.Config, leaf shaper.Leaf) []*Endpoint {
	for _, e := range endpoints {
		e.Network.Driver = cmp.Or(e.Network.Driver, "bridge")
	}
	return new(drafts).desired(endpoints, endpoint.Operator{Exclude: cfg.Exclude, AllowOptOut: cfg.AllowOptOut}, cfg, leaf)
}

// pointers is how Join gives endpoints.
func pointers(all ...endpoint.Endpoint) []*endpoint.Endpoint {
	out := make([]*endpoint.Endpoint, len(all))
	for i := range all {
		out[i] = &all[i]
	}
	return out
}

func TestDesired(t *testing.T) {
	one := func(e endpoint.Endpoint, cfg config.Config) *Endpoint {
		e.Network.Name = "backend"
		return desired(pointers(e), &cfg, shaper.Hashed)[0]
	}
	port := &link.Port{MTU: 1500}
	t.Run("shapes_both_directions_from_labels", func(t *testing.T) {
		d := one(endpoint.Endpoint{Port: port, Container: container("netguard.ingress.rate", "50mbit", "netguard.egress.rate", "10mbit")}, config.Config{})
		if d.Wish.Ingress == nil || d.Wish.Egress == nil || d.Wish.Egress.Classes[0].Rate != 10e6/8 || len(d.Faults()) > 0 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("wishes_for_nothing_without_a_limit", func(t *testing.T) {
		if d := one(endpoint.Endpoint{Port: port, Container: container()}, config.Config{}); !d.Form().Empty() {
			t.Errorf("%+v", d.Form())
		}
	})
	t.Run("leaves_unmanaged_endpoints_alone", func(t *testing.T) {
		d := one(endpoint.Endpoint{Port: port, Container: container("netguard.egress.rate", "10mbit")}, config.Config{Exclude: []string{"backend"}})
		if d.Unmanaged == "" || d.Wish != (shaper.Wish{}) {
			t.Errorf("%+v", d.Wish)
		}
	})
	t.Run("counts_the_labels_of_those_who_share_the_namespace", func(t *testing.T) {
		d := one(endpoint.Endpoint{Port: port, Container: container("netguard.egress.rate", "10mbit"),
			Sharers: []docker.Container{container("netguard.egress.rate", "3mbit")}}, config.Config{})
		if got := d.Limits.Limit[shaper.Egress].Rate; got != 3*shaper.Mbit {
			t.Errorf("egress %v, want the lower one", got)
		}
	})
	t.Run("says_what_is_wrong_with_a_label", func(t *testing.T) {
		d := one(endpoint.Endpoint{Port: port, Container: container("netguard.egress.rate", "10mbps")}, config.Config{})
		if len(d.Wrong) != 1 || !strings.Contains(d.Wrong[0], `netguard.egress.rate="10mbps"`) || d.Wish.Egress == nil {
			t.Errorf("faults %q, wish %+v", d.Faults(), d.Wish)
		}
	})
	t.Run("says_that_a_label_is_of_a_network_that_the_container_is_not_on", func(t *testing.T) {
		c := container("netguard.network.backend.egress.rate", "1mbit", "netguard.network.later.egress.rate", "2mbit", "netguard.network.other.egress.rate", "3mbit")
		c.Networks = []string{"later"}
		on := func(network string) endpoint.Endpoint {
			return endpoint.Endpoint{Key: endpoint.Key{Container: "c", Network: network}, Port: port, Container: c, Network: docker.Network{Name: network}}
		}
		for _, d := range desired(pointers(on("backend"), on("other")), &config.Config{}, shaper.Hashed) {
			if len(d.Faults()) > 0 || d.Wish.Egress == nil {
				t.Errorf("on %s: %q, %+v", d.Network.Name, d.Faults(), d.Wish)
			}
		}
		for _, d := range desired(pointers(on("backend")), &config.Config{}, shaper.Hashed) {
			if len(d.Wrong) > 0 || len(d.notes) != 1 || !strings.Contains(d.notes[0], "netguard.network.other.egress.rate has no effect") {
				t.Errorf("on %s: %q", d.Network.Name, d.Faults())
			}
		}
	})
	t.Run("falls_back_to_a_derived_burst_where_the_kernel_cannot_count_the_label's", func(t *testing.T) {
		d := one(endpoint.Endpoint{Port: port, Container: container("netguard.egress.rate", "64kbit", "netguard.egress.burst", "4000MiB")}, config.Config{})
		if len(d.notes) != 1 || d.Wish.Egress == nil {
			t.Errorf("faults %q, wish %+v", d.Faults(), d.Wish)
		}
	})
	t.Run("keeps_its_form_when_only_the_source_of_a_limit_changes", func(t *testing.T) {
		label := one(endpoint.Endpoint{Port: port, Container: container("netguard.egress.rate", "10mbit")}, config.Config{})
		byDefault := one(endpoint.Endpoint{Port: port}, config.Config{Limits: shaper.Operator{Default: [2]shaper.Rate{0, 10 * shaper.Mbit}}})
		if label.Form() != byDefault.Form() {
			t.Errorf("%+v and %+v", label.Form(), byDefault.Form())
		}
	})
}
