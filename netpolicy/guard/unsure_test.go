package guard

import "testing"

// TestUnsure has a transaction fail: the next Apply makes it good, and takes what
// is left undone for nobody's doing.
func TestUnsure(t *testing.T) {
	h := newHost(t, 2)
	d := h.driver()
	w := h.wish()
	w.edit(1).Admitted = false
	h.apply(d, w)
	w.edit(1).Admitted = true
	// As if the kernel did not take it.
	if err := d.filter.raw.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Apply(w, Look{}); err == nil {
		t.Fatal("it did not fail")
	}
	if _, err := d.Violations(); err != nil {
		t.Errorf("violations after that: %v", err)
	}
	r, err := d.Apply(w, Look{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Drift) > 0 || r.Changes == 0 || r.Ports[h.boxes[1].port].State != Admitted {
		t.Errorf("the next one: %+v", r)
	}
}
