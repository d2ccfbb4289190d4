package guard

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"netguard/integration/attack"
	"netguard/internal/apart"
	"netguard/internal/asroot"
)

// probeHere probes where no namespace can be made.
func probeHere() (Features, error) {
	return probe(func(func() error) error { return apart.ErrNoNamespace })
}

func TestProbe(t *testing.T) {
	h := newHost(t, 0)
	look := func() string {
		return output(t, "ip", "link") + output(t, "nft", "list", "ruleset")
	}
	before := look()
	for name, probe := range map[string]func() (Features, error){"apart": Probe, "here": probeHere} {
		h.run(t, "leaves_nothing_"+name, func(t *testing.T) {
			f, err := probe()
			if err != nil {
				t.Fatal(err)
			}
			differ(t, before, look(), "left")
			if (f.Locked && f.Sticky && f.Filter && f.Prefixes && f.Samples) != (len(f.Missing) == 0) {
				t.Errorf("%+v", f)
			}
		})
	}
	h.run(t, "stays_in_its_namespace", func(t *testing.T) {
		process := func() string {
			name, err := os.Readlink("/proc/self/ns/net")
			if err != nil {
				t.Fatal(err)
			}
			return name
		}
		before := process()
		for range 20 {
			if _, err := Probe(); err != nil {
				t.Fatal(err)
			}
		}
		if after := process(); after != before {
			t.Errorf("the process moved from %s to %s", before, after)
		}
	})
	h.run(t, "says_what_is_there_already", func(t *testing.T) {
		run(t, "ip", "link", "add", probeName+"0", "type", "bridge")
		if _, err := probeHere(); err == nil || !strings.Contains(err.Error(), probeName) {
			t.Errorf("%v", err)
		}
	})
}

// TestTiers takes from the kernel, one by one, what older ones lack.
func TestTiers(t *testing.T) {
	asroot.Only(t)
	all, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		lack func(*Features)
		// passes are the attacks that nothing stops then.
		passes func(attack.Attack) bool
	}{
		"no locked":   {func(f *Features) { f.Locked = false }, func(attack.Attack) bool { return false }},
		"no sticky":   {func(f *Features) { f.Sticky = false }, func(attack.Attack) bool { return false }},
		"no prefixes": {func(f *Features) { f.Prefixes = false }, func(attack.Attack) bool { return false }},
		"no samples":  {func(f *Features) { f.Samples = false }, func(attack.Attack) bool { return false }},
		"no filter": {func(f *Features) { f.Filter = false }, func(a attack.Attack) bool {
			return a.Kind != attack.OfMAC
		}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			h := newHost(t, 3)
			before := h.state()
			a, v, third := h.boxes[0], h.boxes[1], h.boxes[2]
			f := all
			c.lack(&f)
			d, err := Open(f, slog.New(slog.DiscardHandler))
			h.check(err)
			t.Cleanup(d.Close)
			h.apply(d, h.wish())
			for _, at := range attack.All {
				if deliver(t, a, v, at.Frame(scene(a, v, third))) != c.passes(at) {
					t.Errorf("%s: unexpected", at.Name)
				}
			}
			for _, f := range honest {
				if !deliver(t, a, v, f.frame(a, v)) {
					t.Errorf("%s was dropped", f.name)
				}
			}
			h.check(d.Cleanup())
			differ(t, before, h.state(), "traces")
		})
	}
}

// TestWithoutAFilter has no table in which anything is kept.
func TestWithoutAFilter(t *testing.T) {
	h := newHost(t, 2)
	before := h.state()
	open := func() *Driver {
		f, err := Probe()
		h.check(err)
		f.Filter = false
		d, err := Open(f, slog.New(slog.DiscardHandler))
		h.check(err)
		t.Cleanup(d.Close)
		return d
	}
	d := open()
	all := h.wish()
	h.run(t, "nothing_is_remembered_of_ports_that_went", func(t *testing.T) {
		h.apply(d, all)
		for i := range 5 {
			w := all
			b := h.addBox(bridgeName, "guest", 20+i)
			w.Ports = h.wish().Ports
			if r := h.apply(d, w); r.Ports[b.port].State != Admitted {
				t.Fatalf("it is %s", r.Ports[b.port].State)
			}
			run(t, "ip", "link", "del", b.name)
			h.boxes = h.boxes[:2]
		}
		h.apply(d, all)
		if len(d.seen) != 2 || len(d.kernel.before) != 2 || len(d.kernel.pins) != 2 {
			t.Errorf("%d, %d and %d are known of 2 ports", len(d.seen), len(d.kernel.before), len(d.kernel.pins))
		}
	})
	h.run(t, "a_port_that_is_wished_no_more_gets_back_what_it_had", func(t *testing.T) {
		less := all
		less.Ports = all.Ports[:1]
		h.apply(d, less)
		if len(d.seen) != 1 || len(d.kernel.before) != 1 {
			t.Errorf("%d and %d are known of 1 port", len(d.seen), len(d.kernel.before))
		}
		h.apply(d, Wish{Options: all.Options})
		differ(t, before, h.state(), "left")
	})
	h.run(t, "another_process_cleans_up_after_it", func(t *testing.T) {
		w := all
		w.Ports = slices.Clone(all.Ports)
		w.edit(0).Admitted = false
		h.apply(d, w)
		if h.state() == before {
			t.Fatal("nothing was done")
		}
		h.check(open().Cleanup())
		differ(t, before, h.state(), "left")
	})
}

// TestWithoutIPv6 has a host that speaks no IPv6 on the bridge.
func TestWithoutIPv6(t *testing.T) {
	h := newHost(t, 2)
	d := h.driver()
	run(t, "sysctl", "-qw", "net.ipv6.conf."+bridgeName+".disable_ipv6=1")
	h.apply(d, h.wish())
	run(t, "sysctl", "-qw", "net.ipv6.conf."+bridgeName+".disable_ipv6=0")
	h.apply(d, h.wish())
	if got := output(t, "ip", "-6", "neigh", "show", "nud", "permanent"); strings.Count(got, "PERMANENT") != 4 {
		t.Errorf("neighbours: %s", got)
	}
	run(t, "sysctl", "-qw", "net.ipv6.conf."+bridgeName+".disable_ipv6=1")
	h.apply(d, h.wish())
}

// TestFailure makes the transaction fail: then nothing is taken away.
func TestFailure(t *testing.T) {
	h := newHost(t, 3)
	d := h.driver()
	w := h.wish()
	h.apply(d, w)
	before := h.state()
	name := d.filter.name
	d.filter.name = strings.Repeat("x", 300) // longer than a table's may be
	less := w
	less.Ports = w.Ports[1:]
	if _, err := d.Apply(less, Everything); err == nil {
		t.Fatal("it did not fail")
	}
	differ(t, before, h.state(), "changed")
	d.filter.name = name
	h.apply(d, less)
	if got := output(t, "bridge", "-d", "link", "show", "dev", h.boxes[0].name); !strings.Contains(got, "learning on") {
		t.Errorf("not released: %s", got)
	}
}

func TestTierNames(t *testing.T) {
	all := Features{Filter: true, Locked: true, Sticky: true, Prefixes: true, Limits: true}
	less := func(change func(*Features)) Features { f := all; change(&f); return f }
	for want, f := range map[string]Features{
		TierFull:                              all,
		"full, without limits of connections": less(func(f *Features) { f.Limits = false }),
		"full, without prefixes":              less(func(f *Features) { f.Prefixes, f.Limits = false, false }),
		"without locked ports":                less(func(f *Features) { f.Locked = false }),
		"without sticky entries":              less(func(f *Features) { f.Sticky = false }),
		"filter only":                         {Filter: true},
		TierPorts:                             {Locked: true},
		TierNone:                              {},
	} {
		if got := f.Tier(); got != want {
			t.Errorf("%+v is %q, want %q", f, got, want)
		}
	}
}
