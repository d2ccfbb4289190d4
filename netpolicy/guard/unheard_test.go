package guard

import "testing"

// TestLooksAtAll: looks at what the kernel tells nobody of come round to everything, also
// to what it should have told of.
func TestLooksAtAll(t *testing.T) {
	h := newHost(t, 3)
	d, w := h.driver(), h.wish()
	h.apply(d, w)
	b := h.boxes[1]
	for name, does := range map[string][]string{
		"settings_of_a_port": {"bridge", "link", "set", "dev", b.name, "flood", "on"},
		"an_FDB_entry":       {"bridge", "fdb", "del", b.mac.String(), "dev", b.name, "master", "static"},
		"a_neighbour":        {"ip", "neigh", "del", b.ip4.String(), "dev", bridgeName},
	} {
		h.run(t, name, func(t *testing.T) {
			run(t, does[0], does[1:]...)
			if r, err := d.Apply(w, Look{}); err != nil || r.Changes > 0 {
				t.Fatalf("what nobody told of was looked at: %q, %v", r.Drift, err)
			}
			for range wholeIn {
				r, err := d.Apply(w, Look{Unheard: true})
				h.check(err)
				if r.Changes > 0 {
					if len(r.Drift) == 0 {
						t.Error("nothing was told of it")
					}
					return
				}
			}
			t.Error("it stays")
		})
	}
	h.run(t, "nothing_else_is_changed", func(t *testing.T) {
		for range wholeIn + 1 {
			if r, err := d.Apply(w, Look{Unheard: true}); err != nil || r.Changes > 0 {
				t.Fatalf("%q, %v", r.Drift, err)
			}
		}
		if r, err := d.Read(Everything); err != nil || r.Changes > 0 {
			t.Fatalf("%q, %v", r.Drift, err)
		}
	})
	h.run(t, "a_port_that_went_was_changed_by_nobody", func(t *testing.T) {
		if !d.Features().Checksum {
			t.Skip("the kernel has no BPF program that goes with a port")
		}
		run(t, "ip", "link", "del", h.boxes[2].name) // and the kernel has not told of it yet
		for range wholeIn {
			if r, err := d.Apply(w, Look{Unheard: true}); err != nil || len(r.Drift) > 0 {
				t.Fatalf("%q, %v", r.Drift, err)
			}
		}
	})
	h.run(t, "counters_of_nobody_are_taken_away", func(t *testing.T) {
		stale := counted{port: 1 << 20, kind: kindMAC}
		h.check(d.filter.commit(change{add: map[string]elements{setViolations: {stale.element(): ""}}}, d.layout.sets))
		for range wholeIn {
			_, err := d.Apply(w, Look{Unheard: true})
			h.check(err)
		}
		counts, err := d.filter.violations()
		h.check(err)
		if _, there := counts[stale]; there {
			t.Error("one is still there")
		}
	})
}
