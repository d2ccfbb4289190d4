package shaper_test

import (
	"testing"

	"netguard/shaper"
)

var leaves = []shaper.Leaf{shaper.FQCodel, shaper.SFQ, shaper.Hashed}

func each(t *testing.T, do func(rate shaper.Rate, mtu int, tree shaper.Tree)) {
	t.Helper()
	for _, leaf := range leaves {
		for _, rate := range []shaper.Rate{shaper.MinRate, 64 * shaper.Kbit, shaper.Mbit, 5 * shaper.Mbit, 255 * shaper.Mbit,
			256 * shaper.Mbit, shaper.Gbit, 40 * shaper.Gbit, shaper.MaxRate} {
			for _, mtu := range []int{68, 576, 1280, 1500, 9000, 65535} {
				for _, dir := range shaper.Directions {
					tree, err := shaper.Build(shaper.Limit{Rate: rate}, dir, mtu, leaf)
					if err != nil && rate > shaper.MinRate {
						t.Fatal(err)
					}
					if err != nil {
						continue // a burst of two frames takes minutes
					}
					do(rate, mtu, tree)
				}
			}
		}
	}
}

// The fragments of a datagram, and the segments of a batch, arrive all at once.
func TestNoQueueIsShorterThanADatagram(t *testing.T) {
	const payload = 65535
	each(t, func(rate shaper.Rate, mtu int, tree shaper.Tree) {
		pieces := payload/((mtu-48)&^7) + 1
		bytes := uint32(payload + pieces*(14+48))
		batch := uint32(payload + 128*(14+48))
		for _, q := range tree.Queues {
			switch q.Kind {
			case "tbf", "bfifo":
				if q.Limit < bytes || q.Limit < batch {
					t.Errorf("%v, MTU %d: class %x holds %d bytes, a datagram has %d, a batch %d", rate, mtu, q.Class, q.Limit, bytes, batch)
				}
			case "sfq":
				if q.Limit < uint32(min(pieces, 127)) {
					t.Errorf("%v, MTU %d: sfq holds %d packets, a datagram has %d", rate, mtu, q.Limit, pieces)
				}
			case "fq_codel":
				// It may not count the tail of a datagram as a queue that stands.
				if took := uint64(bytes) * 1e6 / max(uint64(rate)/8, 1); took > uint64(q.Interval) && rate > shaper.MinRate || q.Memory < 1<<20 {
					t.Errorf("%v, MTU %d: a datagram takes %d us, the interval is %d", rate, mtu, took, q.Interval)
				}
			default:
				t.Errorf("a queue %q", q.Kind)
			}
		}
	})
}

// Who is within its guarantee is not asked what the others sent, so together the
// guarantees under a class must not be more than it has.
func TestGuaranteesFitTheirParent(t *testing.T) {
	each(t, func(rate shaper.Rate, mtu int, tree shaper.Tree) {
		if rate < 64*shaper.Kbit {
			return // they are a byte a second at least
		}
		for _, parent := range tree.Classes {
			var sum uint64
			for _, c := range tree.Classes {
				if c.Parent == parent.Minor {
					sum += c.Rate
				}
			}
			if sum > parent.Rate {
				t.Errorf("%v: the classes under %x have %d bytes a second, it has %d", rate, parent.Minor, sum, parent.Rate)
			}
		}
	})
}

// docs/performance.md and a test of the first packet tell what these are.
func TestBurst(t *testing.T) {
	for _, c := range []struct {
		dir  shaper.Direction
		rate shaper.Rate
		want shaper.Size
	}{{shaper.Ingress, 10 * shaper.Mbit, 19839}, {shaper.Egress, 10 * shaper.Mbit, 12759}, {shaper.Egress, 8 * shaper.Mbit, 12634}} {
		tree, err := shaper.Build(shaper.Limit{Rate: c.rate}, c.dir, 1500, shaper.Hashed)
		if err != nil || tree.Burst != c.want {
			t.Errorf("%v at %v: %d bytes, %v", c.dir, c.rate, tree.Burst, err)
		}
	}
}
