package guard

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestBetter(t *testing.T) {
	const high, time = 0, 1
	for _, c := range []struct {
		knob      int
		now, want string
	}{
		{high, "4194304", "268435456"}, {high, "268435456", ""}, {high, "500000000", ""}, {high, "", ""}, {high, "x", ""}, {high, "0", "268435456"},
		{time, "30", "2"}, {time, "2", ""}, {time, "1", ""}, {time, "0", ""}, {time, "-1", ""},
	} {
		if got, _ := knobs[c.knob].better(c.now, 256<<20); got != c.want {
			t.Errorf("%s, now %q: %q, want %q", knobs[c.knob], c.now, got, c.want)
		}
	}
}

// TestKnobWarnings: a knob that cannot be read is not said to be one that cannot be set.
func TestKnobWarnings(t *testing.T) {
	const unread, recorded, unset, fine = 0, 1, 2, 3
	d := &Driver{features: Features{Filter: true}, plan: &plan{knobs: map[int]string{recorded: "2", unset: "268435456", fine: "2"}}}
	d.wish.FragmentRate = DefaultFragmentRate
	no := errors.New("no")
	d.kernel.reassembly = reassembly{now: map[int]string{unset: "1", fine: "2"}, refused: map[int]error{unread: no, recorded: no, unset: no}}
	starts := []string{"net.ipv4.ipfrag_high_thresh cannot be read: ", "net.ipv4.ipfrag_time cannot be read: ", "net.ipv6.ip6frag_high_thresh cannot be set to 268435456: "}
	if got := d.warnings(); !slices.EqualFunc(got, starts, strings.HasPrefix) {
		t.Errorf("%q", got)
	}
	d.wish.FragmentRate, d.plan.knobs = 0, nil
	if got := d.warnings(); len(got) > 0 {
		t.Errorf("where none is wanted: %q", got)
	}
}

// TestReassembly has the host's settings changed, repaired, kept over a crash and put
// back.
func TestReassembly(t *testing.T) {
	h := newHost(t, 2)
	read := func() map[string]string {
		out := map[string]string{}
		for _, k := range knobs {
			if text, err := os.ReadFile(sysctls + k.path); err == nil {
				out[k.path] = string(text)
			}
		}
		return out
	}
	write := func(path, value string) {
		t.Helper()
		h.check(os.WriteFile(sysctls+path, []byte(value), 0))
	}
	const odd, memory, wait = "5242881", "ipv4/ipfrag_high_thresh", "ipv4/ipfrag_time"
	write(memory, odd)
	write("ipv6/ip6frag_time", "1")
	before := read()
	if len(before) < 4 {
		t.Fatalf("%v", before)
	}
	same := func(when string, want map[string]string) {
		t.Helper()
		now := read()
		for path := range before {
			if now[path] != want[path] {
				t.Errorf("%s: %s is %q, want %q", when, path, now[path], want[path])
			}
		}
	}
	w := h.wish()
	w.FragmentRate = DefaultFragmentRate
	d := h.driver()
	apply := func(d *Driver, w Wish) Report {
		t.Helper()
		r, err := d.Apply(w, Everything)
		h.check(err)
		return r
	}
	apply(d, w)
	held := read()
	for i, k := range knobs {
		text, there := before[k.path]
		if _, worse := k.better(strings.TrimSpace(held[k.path]), d.kernel.reassembly.memory); there && worse {
			t.Errorf("%s is %q and was %q", knobs[i], held[k.path], text)
		}
	}
	if held[wait] != "2\n" || held["ipv6/ip6frag_time"] != "1\n" {
		t.Errorf("%v", held)
	}
	if r := apply(d, w); r.Changes != 0 || len(r.Warnings) > 0 {
		t.Errorf("again: %+v", r)
	}

	write(wait, "30")
	if r := apply(d, w); !strings.Contains(strings.Join(r.Drift, ";"), "set net.ipv4.ipfrag_time to 2") {
		t.Errorf("drift: %q", r.Drift)
	}
	same("repaired", held)

	// An agent that is killed, and the next.
	d = h.driver()
	if r := apply(d, w); r.Changes != 0 {
		t.Errorf("after a restart: %+v", r)
	}
	watch := w
	watch.Mode = Monitor
	apply(d, watch)
	same("in monitor mode", before)
	apply(d, w)
	same("enforced again", held)
	none := w
	none.FragmentRate = 0
	apply(d, none)
	same("without a rate", before)
	apply(d, w)

	// Somebody else's table takes the place of the guard's; the record is kept.
	run(t, "nft", "delete", "table", "bridge", TableName)
	apply(d, w)
	d = h.driver()
	h.check(d.Cleanup())
	same("cleaned up", before)

	// What the operator sets beyond netguard's while it runs stays.
	apply(d, w)
	write(memory, "536870912")
	if r := apply(d, w); r.Changes != 0 {
		t.Errorf("set higher: %+v", r)
	}
	h.check(d.Cleanup())
	before[memory] = "536870912\n"
	same("cleaned up after the operator", before)
}
