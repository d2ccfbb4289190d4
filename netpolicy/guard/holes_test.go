package guard

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestList: a list is asked for again while it has holes. If the last one has some, that is
// noted.
func TestList(t *testing.T) {
	other := errors.New("other")
	for name, c := range map[string]struct {
		whole []bool
		errs  []error
		asked int
		holes bool // in the last one
		err   error
	}{
		"whole_at_once":        {[]bool{true}, []error{nil}, 1, false, nil},
		"whole_at_the_third":   {[]bool{false, false, true}, []error{nil, nil, nil}, 3, false, nil},
		"whole_after_an_EINTR": {[]bool{true, true}, []error{unix.EINTR, nil}, 2, false, nil},
		"never_whole":          {make([]bool, 5), make([]error, 5), 5, true, nil},
		"an_error":             {[]bool{false, true}, []error{nil, other}, 2, false, other},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			var a asker
			answers, err := a.list(func() ([][]byte, bool, error) {
				n++
				return [][]byte{{byte(n)}}, c.whole[n-1], c.errs[n-1]
			})
			if n != c.asked || a.holes != c.holes || !errors.Is(err, c.err) || answers[0][0] != byte(n) {
				t.Errorf("asked %d times: %v, holes: %t, %v", n, answers, a.holes, err)
			}
		})
	}
}

// TestHoles: after a list with holes, the next look reads everything.
func TestHoles(t *testing.T) {
	h := newHost(t, 2)
	d, w := h.driver(), h.wish()
	h.apply(d, w)
	delete(d.kernel.ports, h.boxes[1].port) // the list lacked it
	run(t, "bridge", "link", "set", "dev", h.boxes[0].name, "learning", "on")
	d.links.holes = true
	r, err := d.Apply(w, Look{})
	if err != nil || len(r.Drift) != 1 || r.Ports[h.boxes[1].port].State != Admitted || d.links.holes {
		t.Errorf("%+v, %v, holes again: %t", r, err, d.links.holes)
	}
}
