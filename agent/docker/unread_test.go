package docker

import (
	"slices"
	"strings"
	"testing"
)

// TestUnreadLabels: a container whose labels are too large to read is known without them, and
// hides no other container.
func TestUnreadLabels(t *testing.T) {
	full := Hint{Full: true}
	for name, c := range map[string]struct {
		containers, asked int // at most so many lists
		many              []int
	}{
		"alone":             {1, 6, []int{0}},
		"the_newest":        {70, 40, []int{0}},
		"the_oldest":        {70, 20, []int{69}},
		"the_last_of_32":    {64, 40, []int{31}},
		"the_first_of_32":   {64, 40, []int{32}},
		"some":              {70, 90, []int{0, 1, 33, 40, 69}},
		"all":               {10, 25, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"one_among_a_crowd": {900, 80, []int{500}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(c.containers, 1)
			s.many = map[string]bool{}
			for _, i := range c.many {
				s.many[s.ids[i]] = true
			}
			check := func(e *Engine, h Hint) View {
				t.Helper()
				v, err := e.Refresh(t.Context(), h)
				if err != nil || len(v.Containers) != len(s.ids) {
					t.Fatalf("%d containers, %v", len(v.Containers), err)
				}
				for _, c := range v.Containers {
					if unread := c.Unread != ""; unread != s.many[c.ID] || unread != (len(c.Labels) == 0) {
						t.Errorf("%s: %q, %d labels", c.ID, c.Unread, len(c.Labels))
					}
					if want := "the labels of " + c.Name + " are too large to read"; c.Unread != "" && !strings.Contains(c.Unread, want) {
						t.Errorf("%q", c.Unread)
					}
				}
				return v
			}
			open := func() *Engine {
				e := s.open(t)
				e.most = 256 << 10
				return e
			}
			e := open()
			v := check(e, full)
			if n := strings.Count(strings.Join(s.asked, " "), "containers/json?"); n > c.asked {
				t.Errorf("it was listed %d times", n)
			}
			if again := check(e, full); !slices.Equal(again.Containers, v.Containers) {
				t.Error("read again, it differs")
			}
			one := s.ids[c.many[0]]
			if again := check(e, Hint{Containers: map[string]struct{}{one: {}}}); !slices.Equal(again.Containers, v.Containers) {
				t.Error("asked for by its ID, it differs")
			}
			check(open(), full) // a new agent
			delete(s.many, one)
			check(e, Hint{Containers: map[string]struct{}{one: {}}})
		})
	}
}
