package tc

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netguard/shaper"
)

var update = flag.Bool("update", false, "write the golden files")

// The messages of each leaf are pinned, since a kernel that has only one of them
// tests no other. They were compared with those of iproute2's tc.
func TestMessages(t *testing.T) {
	for _, leaf := range []shaper.Leaf{shaper.FQCodel, shaper.SFQ, shaper.Hashed} {
		for name, rate := range map[string]shaper.Rate{"slow": shaper.Mbit, "fast": 50 * shaper.Gbit} {
			t.Run(string(leaf)+"_"+name, func(t *testing.T) {
				tree, err := shaper.Build(shaper.Limit{Rate: rate}, shaper.Egress, 1500, leaf)
				if err != nil {
					t.Fatal(err)
				}
				var got strings.Builder
				for _, s := range shaper.Diff(shaper.Endpoint{}, shaper.Wish{Ingress: &tree}) {
					if !batched(s.Op) {
						continue
					}
					m, err := encode(7, 0, s)
					if err != nil {
						t.Fatal(err)
					}
					fmt.Fprintf(&got, "%s\n  type %d flags %v\n", s, m.Header.Type, m.Header.Flags)
					for line := m.Data; len(line) > 0; line = line[min(len(line), 20):] {
						fmt.Fprintf(&got, "  %s\n", hex.EncodeToString(line[:min(len(line), 20)]))
					}
				}
				pinned(t, string(leaf)+"_"+name, got.String())
			})
		}
	}
}

func pinned(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is written is what is read: the kernel shows a queue as it was asked for it.
func TestMessagesAreReadBack(t *testing.T) {
	for _, leaf := range []shaper.Leaf{shaper.FQCodel, shaper.SFQ, shaper.Hashed} {
		tree, err := shaper.Build(shaper.Limit{Rate: 5 * shaper.Gbit}, shaper.Ingress, 1500, leaf)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range tree.Queues {
			m, err := encode(7, 0, shaper.Step{Op: shaper.AddQueue, Queue: q})
			if err != nil {
				t.Fatal(err)
			}
			p, err := new(store).parse(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			got, err := queueOf(p)
			if err != nil {
				t.Fatal(err)
			}
			want := shaper.Queue{Class: q.Class, Kind: q.Kind, Limit: q.Limit, Rate: q.Rate, Buffer: q.Buffer, Target: q.Target, Interval: q.Interval}
			if q.Kind == "sfq" {
				want.Quantum = q.Quantum
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-sent +read):\n%s", leaf, diff)
			}
		}
	}
}
