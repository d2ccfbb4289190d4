package desired

import (
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

// imaged is a container whose labels are all its image's.
func imaged(labels ...string) docker.Container {
	c := container(labels...)
	c.ID, c.Image, c.Inherited = "id", "evil:1", map[string]bool{}
	for label := range c.Labels {
		c.Inherited[label] = true
	}
	return c
}

// TestLabelsOfImages: what an image says of itself may narrow, and gives nothing.
func TestLabelsOfImages(t *testing.T) {
	one := func(c docker.Container, cfg config.Config) *Endpoint {
		e := endpoint.Endpoint{Port: &link.Port{MTU: 1500}, Container: c}
		return desired(pointers(e), &cfg, shaper.Hashed)[0]
	}
	trusted := config.Config{TrustImageLabels: config.Globs{"ev*"}}
	unread := imaged(guard.LabelAllow, "192.0.2.10")
	unread.Inherited, unread.Unproven = nil, "the labels of its image cannot be read: no"
	for name, c := range map[string]docker.Container{"no_address": imaged(guard.LabelAllow, "192.0.2.10"), "nor_one_that_cannot_be_read": unread} {
		t.Run(name, func(t *testing.T) {
			d := one(c, config.Config{})
			if len(d.Allow.Prefixes) > 0 || len(d.Wrong) > 0 || len(d.notes) != 1 || !strings.Contains(d.notes[0], "trust_image_labels") {
				t.Errorf("%+v, %q", d.Allow, d.Faults())
			}
			if d := one(c, trusted); len(d.Allow.Prefixes) != 1 || len(d.Faults()) > 0 {
				t.Errorf("of one that is trusted: %+v, %q", d.Allow, d.Faults())
			}
		})
	}
	t.Run("a_wrong_one_still_quarantines", func(t *testing.T) {
		if d := one(imaged(guard.LabelAllow, "nowhere"), config.Config{}); len(d.Wrong) != 1 {
			t.Errorf("%q", d.Faults())
		}
	})
	t.Run("fewer_connections", func(t *testing.T) {
		if d := one(imaged(guard.LabelConnections, "10"), config.Config{Connections: 100}); d.connections != 10 || len(d.Faults()) > 0 {
			t.Errorf("%d, %q", d.connections, d.Faults())
		}
	})
	rates := func(mbit shaper.Rate) config.Config {
		return config.Config{Limits: shaper.Operator{Default: [2]shaper.Rate{shaper.Egress: mbit * shaper.Mbit}}}
	}
	t.Run("less_bandwidth_and_not_more", func(t *testing.T) {
		c := imaged("netguard.egress.rate", "10mbit", "netguard.egress.burst", "1MiB")
		if d := one(c, rates(20)); d.Limits.Limit[shaper.Egress].Rate != 10*shaper.Mbit || len(d.Faults()) > 0 {
			t.Errorf("below the default: %+v, %q", d.Limits.Limit, d.Faults())
		}
		d := one(c, rates(5))
		if got := d.Limits.Limit[shaper.Egress]; got != (shaper.Limit{Rate: 5 * shaper.Mbit, Source: "default"}) || len(d.notes) != 1 {
			t.Errorf("above the default: %+v, %q", got, d.Faults())
		}
		cfg := rates(5)
		cfg.TrustImageLabels = trusted.TrustImageLabels
		if d := one(c, cfg); d.Limits.Limit[shaper.Egress].Rate != 10*shaper.Mbit || len(d.Faults()) > 0 {
			t.Errorf("trusted: %+v, %q", d.Limits.Limit, d.Faults())
		}
		c.Inherited = nil
		if d := one(c, rates(5)); d.Limits.Limit[shaper.Egress].Rate != 10*shaper.Mbit {
			t.Errorf("of the creator: %+v", d.Limits.Limit)
		}
	})
	t.Run("no_more_than_the_creator_says", func(t *testing.T) {
		c := imaged("netguard.network.backend.egress.rate", "1gbit")
		c.Labels["netguard.egress.rate"] = "5mbit"
		e := endpoint.Endpoint{Port: &link.Port{MTU: 1500}, Container: c, Network: docker.Network{Name: "backend"}}
		if d := desired(pointers(e), &config.Config{}, shaper.Hashed)[0]; d.Limits.Limit[shaper.Egress].Rate != 5*shaper.Mbit {
			t.Errorf("%+v, %q", d.Limits.Limit, d.Faults())
		}
	})
	t.Run("policies_know_whose_they_are", func(t *testing.T) {
		c := imaged(netpolicy.LabelProject, "shop", netpolicy.LabelService, "api")
		d := one(c, config.Config{})
		d.Sharers = []docker.Container{unread}
		p := d.party()
		if p.Project != "shop" || p.Service != "api" || !p.Inherited[netpolicy.LabelService] || p.Shared[0].Unproven == "" {
			t.Errorf("%+v", p)
		}
		d.uncounted([]netpolicy.Uncounted{{Container: "web", Label: "role", Value: "backup", Policies: []string{"db", "label netguard.ingress"}}, {Container: "other", Label: "role", Value: "x", Policies: []string{"db"}}})
		if len(d.notes) != 2 || !strings.HasPrefix(d.notes[0], `label "role"="backup" of web does not count for what policy db and the container's label netguard.ingress allows: `) || !strings.Contains(d.notes[0], `"evil:1"`) {
			t.Errorf("%q", d.notes)
		}
	})
	t.Run("trust_changes_nothing_that_was_handed_out", func(t *testing.T) {
		c := imaged("role", "backup")
		e := endpoint.Endpoint{Container: c, Sharers: []docker.Container{c}}
		d := desired(pointers(e), &trusted, shaper.Hashed)[0]
		if !d.Container.Counts("role") || !d.Sharers[0].Counts("role") || e.Container.Counts("role") || e.Sharers[0].Counts("role") {
			t.Errorf("%+v, %+v", d, e)
		}
		if trusting(c, config.Globs{"evil"}).Counts("role") {
			t.Error("a pattern that fits a part of the name is enough")
		}
	})
}
