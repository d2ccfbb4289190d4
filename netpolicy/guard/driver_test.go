package guard

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	vish "github.com/vishvananda/netlink"

	"netguard/integration/attack"
)

var (
	timers  = regexp.MustCompile(`(_timer|_age_timer|delay_timer) +[0-9.]+`)
	packets = regexp.MustCompile(`counter packets [0-9]+ bytes [0-9]+`)
	// meters are what the rules put into sets.
	meters = regexp.MustCompile(`(?s)(set (violations|storm|storm-bytes|samples|unknown|pace-[a-z-]+|(?:open|full|refused)[46]) \{[^}]*?)\t\telements = \{.*?\}\n`)
)

// state is all that the guard could have changed, as the system's own tools print
// it: of the FDB what was not learned, of neighbours what stays.
func (h *host) state() string {
	h.t.Helper()
	out := []string{
		timers.ReplaceAllString(output(h.t, "ip", "-d", "link", "show", "type", "bridge_slave"), "$1"),
		output(h.t, "bridge", "-d", "link"),
		sorted(output(h.t, "bridge", "fdb", "show"), "permanent", "static", "sticky"),
		sorted(output(h.t, "ip", "-4", "neigh", "show", "nud", "permanent"), ""),
		sorted(output(h.t, "ip", "-6", "neigh", "show", "nud", "permanent"), ""),
		packets.ReplaceAllString(meters.ReplaceAllString(output(h.t, "nft", "list", "ruleset"), "$1"), "counter"),
	}
	return strings.Join(out, "\n")
}

// sorted gives the lines that have one of the words.
func sorted(text string, words ...string) string {
	var out []string
	for line := range strings.Lines(text) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// ruleset is nft's own listing with all handles, but for what the rules put into
// sets.
func ruleset(t *testing.T) string {
	t.Helper()
	var all struct {
		Nftables []map[string]map[string]any `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(output(t, "nft", "-j", "list", "ruleset")), &all); err != nil {
		t.Fatal(err)
	}
	for _, object := range all.Nftables {
		// The counters of rules.
		if exprs, ok := object["rule"]["expr"].([]any); ok {
			object["rule"]["expr"] = slices.DeleteFunc(exprs, func(e any) bool { is, _ := e.(map[string]any); return is["counter"] != nil })
		}
		if set := object["set"]; set["name"] == setViolations || set["name"] == setStorm || set["name"] == setStormBytes || set["name"] == setSamples || set["name"] == setUnknown ||
			strings.HasPrefix(fmt.Sprint(set["name"]), "pace-") {
			delete(set, "elem")
		}
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func differ(t *testing.T, before, after, what string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); diff != "" {
		t.Errorf("%s (-before +after):\n%s", what, diff)
	}
}

// foreign is a table of somebody else's, of the same family.
const foreign = "add table bridge theirs; add set bridge theirs macs { type ether_addr; }; add element bridge theirs macs { 02:00:00:00:00:99 }; " +
	"add chain bridge theirs refuse { type filter hook forward priority -200; }; add rule bridge theirs refuse ether saddr @macs drop"

func TestCleanup(t *testing.T) {
	h := newHost(t, 3)
	run(t, "nft", foreign)
	// An operator's own taste, and Docker's.
	run(t, "bridge", "link", "set", "dev", "box1", "learning", "off", "mcast_flood", "off")
	run(t, "ip", "link", "set", "dev", "box1", "type", "bridge_slave", "group_fwd_mask", "0x4000")
	run(t, "bridge", "link", "set", "dev", "box2", "hairpin", "on", "isolated", "on")
	// Somebody's permanent neighbour.
	run(t, "ip", "neigh", "add", "172.30.0.77", "lladdr", "02:00:00:00:00:77", "dev", bridgeName, "nud", "permanent")
	before := h.state()
	clean := func(t *testing.T, d *Driver) {
		t.Helper()
		if err := d.Cleanup(); err != nil {
			t.Fatal(err)
		}
		differ(t, before, h.state(), "traces")
		if err := d.Cleanup(); err != nil {
			t.Errorf("a second time: %v", err)
		}
	}
	h.run(t, "leaves_no_trace", func(t *testing.T) {
		d := h.driver()
		h.apply(d, h.wish())
		if h.state() == before {
			t.Fatal("nothing was done")
		}
		clean(t, d)
	})
	h.run(t, "of_another_process_either", func(t *testing.T) {
		d := h.driver()
		h.apply(d, h.wish())
		w := h.wish()
		w.edit(0).Admitted = false
		w.edit(1).Allow.MACs = []MAC{nobody}
		h.apply(d, w)
		d.Close()
		clean(t, h.driver())
	})
	h.run(t, "when_the_wish_is_empty_only_the_empty_table_is_left", func(t *testing.T) {
		d := h.driver()
		h.apply(d, h.wish())
		h.apply(d, Wish{})
		run(t, "nft", "delete", "table", "bridge", "netguard")
		differ(t, before, h.state(), "traces")
	})
	h.run(t, "in_monitor_mode_nothing_but_the_table_is_made", func(t *testing.T) {
		d := h.driver()
		w := h.wish()
		h.apply(d, w)
		w.Mode = Monitor
		h.apply(d, w)
		run(t, "nft", "delete", "table", "bridge", "netguard")
		differ(t, before, h.state(), "traces")
	})
}

func TestCleanupWithoutTheTable(t *testing.T) {
	h := newHost(t, 2)
	before := h.state()
	d := h.driver()
	h.apply(d, h.wish())
	d.Close()
	run(t, "nft", "flush", "ruleset")
	h.check(h.driver().Cleanup())
	differ(t, before, h.state(), "traces, though the neighbours tell which ports")
	h.run(t, "of_a_port_that_was_not_admitted_either", func(t *testing.T) {
		w := h.wish()
		p1 := w.edit(1)
		p1.Admitted, p1.IPv4, p1.IPv6 = false, netip.Addr{}, netip.Addr{}
		d := h.driver()
		h.apply(d, w)
		d.Close()
		run(t, "nft", "flush", "ruleset")
		h.check(h.driver().Cleanup())
		differ(t, before, h.state(), "traces")
	})
}

func TestRestart(t *testing.T) {
	h := newHost(t, 3)
	w := h.wish()
	w.edit(1).Allow, _ = ParseAllow("10.0.0.0/8,192.0.2.1,02:00:00:00:00:01")
	w.edit(2).Admitted = false
	w.edit(0).Connections = 5000
	d := h.driver()
	h.apply(d, w)
	d.Close()
	before, rules := h.state(), ruleset(t)
	h.run(t, "adopts_without_a_change", func(t *testing.T) {
		r, err := h.driver().Apply(w, Look{})
		if err != nil || r.Changes != 0 || len(r.Drift) > 0 {
			t.Errorf("%d changes, drift %q, %v", r.Changes, r.Drift, err)
		}
		differ(t, before, h.state(), "changed")
		differ(t, rules, ruleset(t), "rules changed")
	})
	h.run(t, "leaves_what_is_standing", func(t *testing.T) {
		standing := Wish{Options: w.Options, Ports: slices.Clone(w.Ports)}
		for i := range standing.Ports { // 2 was not admitted before
			p := standing.edit(i)
			p.Admitted, p.Standing = false, true
		}
		standing.edit(1).Allow = Allow{} // what a label allows is not what stands
		check := func(states ...State) {
			t.Helper()
			r, err := h.driver().Apply(standing, Everything)
			h.check(err)
			for i, want := range states {
				if got := r.Ports[h.boxes[i].port].State; got != want {
					t.Errorf("port %d is %s, want %s", i, got, want)
				}
			}
		}
		check(Admitted, Admitted, Quarantined)
		standing.edit(1).IPv4 = netip.MustParseAddr("10.0.0.99") // another container's now
		check(Admitted, Quarantined, Quarantined)
		h.apply(h.driver(), w)
	})
	h.run(t, "does_only_what_changed_meanwhile", func(t *testing.T) {
		w.edit(2).Admitted = true
		d := h.driver()
		r, err := d.Apply(w, Everything)
		if err != nil {
			t.Fatal(err)
		}
		// Pin, 3 neighbours, settings; and in the table known, quarantined, 1 MAC,
		// and 3 addresses in two sets.
		if r.Changes != 14 || r.Ports[h.boxes[2].port].State != Admitted {
			t.Errorf("%d changes: %+v", r.Changes, r.Ports)
		}
	})
	h.run(t, "replaces_an_older_layout_and_keeps_its_records", func(t *testing.T) {
		run(t, "bridge", "link", "set", "dev", "box0", "learning", "on")
		w.Storm.Rate++
		d := h.driver()
		h.apply(d, w)
		if got := output(t, "nft", "list", "set", "bridge", "netguard", "ports"); strings.Count(got, "before: learning flood mcast_flood bcast_flood") != 3 {
			t.Errorf("records: %s", got)
		}
		if got := strings.Count(output(t, "nft", "list", "table", "bridge", "netguard"), "chain "+layoutPrefix); got != 1 {
			t.Errorf("%d layouts", got)
		}
	})
}

func TestOthers(t *testing.T) {
	h := newHost(t, 2)
	run(t, "nft", foreign)
	h.addBridge("br-other", MAC{2, 0x42, 0, 0, 0, 9})
	a, v := h.addBox("br-other", "other0", 20), h.addBox("br-other", "other1", 21)
	ours := h.boxes[:2]
	before := output(t, "bridge", "-d", "link", "show", "dev", "other0") + output(t, "nft", "list", "table", "bridge", "theirs")
	h.boxes = ours
	d := h.driver()
	h.apply(d, h.wish())
	h.run(t, "ports_of_another_bridge_do_as_they_like", func(t *testing.T) {
		for _, at := range attack.All {
			// The bridge must know again where v is.
			deliver(t, v, a, ether(broadcast, v.mac, 0x806, arpPacket(1, v.mac, v.ip4, MAC{}, v.ip4)))
			if !deliver(t, a, v, at.Frame(scene(a, v, ours[0]))) {
				t.Errorf("%s was dropped", at.Name)
			}
		}
	})
	h.run(t, "what_is_others_stays_as_it_was", func(t *testing.T) {
		after := output(t, "bridge", "-d", "link", "show", "dev", "other0") + output(t, "nft", "list", "table", "bridge", "theirs")
		differ(t, before, after, "changed")
	})
}

func TestHops(t *testing.T) {
	h := newHost(t, 3)
	before := h.state()
	rng := rand.New(rand.NewPCG(3, 4))
	random := func() Wish {
		w := h.wish()
		w.Ports = slices.DeleteFunc(slices.Clone(w.Ports), func(*Port) bool { return rng.IntN(4) == 0 })
		w.Mode = Mode(rng.IntN(5) / 4)
		w.Open = rng.IntN(4) == 0
		for i := range w.Ports {
			p := w.edit(i)
			p.Admitted, p.Guarded = rng.IntN(3) > 0, rng.IntN(5) > 0
			if rng.IntN(3) == 0 {
				p.Allow, _ = ParseAllow([]string{"10.0.0.0/8", "10.0.0.0/16,fd00:1::/32", "192.0.2.1,02:00:00:00:00:01", "02:00:00:00:00:02"}[rng.IntN(4)])
			}
			if rng.IntN(4) == 0 {
				p.IPv6 = netip.Addr{}
			}
		}
		return w
	}
	d := h.driver()
	var last Wish
	for range 60 {
		last = random()
		h.apply(d, last)
		if rng.IntN(10) == 0 {
			d.Close()
			d = h.driver()
		}
	}
	along := h.state()
	h.check(d.Cleanup())
	differ(t, before, h.state(), "traces after many hops")
	h.apply(d, last)
	sortElements := func(s string) []string {
		f := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == ',' })
		for i := range f {
			f[i] = strings.Trim(f[i], " \t{}=")
			f[i] = strings.TrimPrefix(f[i], "elements = { ")
		}
		slices.Sort(f)
		return f
	}
	if diff := cmp.Diff(sortElements(along), sortElements(h.state())); diff != "" {
		t.Errorf("the end depends on the way (-along +direct):\n%s", diff)
	}
}

func TestGone(t *testing.T) {
	h := newHost(t, 3)
	d := h.driver()
	w := h.wish()
	h.apply(d, w)
	link, err := vish.LinkByName("box1")
	h.check(err)
	h.check(vish.LinkDel(link))
	r, err := d.Apply(w, Look{Links: map[int]struct{}{h.boxes[1].port: {}}})
	if err != nil || r.Ports[h.boxes[1].port].State != Gone || r.Ports[h.boxes[0].port].State != Admitted {
		t.Errorf("%+v, %v", r, err)
	}
	w.Ports = slices.Delete(slices.Clone(w.Ports), 1, 2)
	h.apply(d, w)
	if got := h.state(); strings.Contains(got, h.boxes[1].mac.String()) {
		t.Errorf("something is left of it:\n%s", got)
	}
}
