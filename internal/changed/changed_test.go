package changed

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestBetween: what came and what went leads from one list to the other, whatever they are.
func TestBetween(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 3))
		was := r.Perm(8)[:r.IntN(9)]
		is := r.Perm(8)[:r.IntN(9)]
		gone, came := Between(was, is)
		var wantGone, wantCame []int
		for _, v := range was {
			if !slices.Contains(is, v) {
				wantGone = append(wantGone, v)
			}
		}
		for _, v := range is {
			if !slices.Contains(was, v) {
				wantCame = append(wantCame, v)
			}
		}
		if !slices.Equal(gone, wantGone) || !slices.Equal(came, wantCame) {
			t.Fatalf("from %v to %v: gone %v and came %v, want %v and %v", was, is, gone, came, wantGone, wantCame)
		}
	}
}

type keyed struct{ key string }

func (k *keyed) Key() string { return k.key }

// TestWith: a list with some more has, for each key, what came last.
func TestWith(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 5))
		var list []*keyed
		want := map[string]*keyed{}
		for range 4 {
			some := map[string]*keyed{}
			for range r.IntN(4) {
				key := string(rune('a' + r.IntN(6)))
				if some[key] = nil; r.IntN(3) > 0 {
					some[key] = &keyed{key}
				}
			}
			for key, v := range some {
				if want[key] = v; v == nil {
					delete(want, key)
				}
			}
			before := slices.Clone(list)
			is := With(list, some)
			if !slices.Equal(list, before) {
				t.Fatal("the list that was handed out changed")
			}
			if !slices.IsSortedFunc(is, func(a, b *keyed) int { return strings.Compare(a.key, b.key) }) || len(is) != len(want) {
				t.Fatalf("%v, want %v", is, want)
			}
			for key, v := range want {
				if Find(is, key) != v {
					t.Fatalf("%s is %v, want %v", key, Find(is, key), v)
				}
			}
			list = is
		}
		if same := With(list, map[string]*keyed{"z": nil}); len(list) > 0 && &same[0] != &list[0] {
			t.Error("nothing changed, and it is another list")
		}
	}
}
