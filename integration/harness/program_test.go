package harness_test

import (
	"slices"
	"testing"

	"netguard/integration/harness"
)

func TestProgram(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(harness.TB)
		code int
	}{
		"ends well":            {func(harness.TB) {}, 0},
		"fails":                {func(tb harness.TB) { tb.Errorf("as it should") }, 1},
		"ends in the middle":   {func(tb harness.TB) { tb.Fatalf("as it should") }, 1},
		"panics":               {func(harness.TB) { panic("as it should") }, 1},
		"fails in the cleanup": {func(tb harness.TB) { tb.Cleanup(func() { tb.Fatalf("as it should") }) }, 1},
	} {
		t.Run("a program that "+name+" cleans up, the last first", func(t *testing.T) {
			var done []int
			code := harness.Program(name, func(tb harness.TB) {
				tb.Cleanup(func() { done = append(done, 1) })
				tb.Cleanup(func() {
					if tb.Context().Err() != nil {
						t.Error("what a cleanup does should be possible")
					}
					done = append(done, 2)
				})
				test.end(tb)
			})
			if code != test.code || !slices.Equal(done, []int{2, 1}) {
				t.Errorf("exit code %d, cleaned up %v", code, done)
			}
		})
	}
}
