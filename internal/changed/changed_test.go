package changed

import (
	"math/rand/v2"
	"slices"
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
