package tc

import (
	"errors"

	"netguard/shaper"
)

// Counters are what passed the root of a device since it was made.
type Counters struct {
	Bytes, Packets, Drops, Backlog uint64 // Backlog in bytes
}

// countersOfTree gives what passed netguard's tree among the qdiscs of a device.
// ours tells whether there is one. The leaves count all drops. The root misses some: if a
// super-packet is cut and only a part of its segments fits, the root does not count the others.
// But the root still counts the drops of leaves that were replaced. So the greater sum is given.
func countersOfTree(on []message) (sum Counters, ours bool, err error) {
	var leaves uint64
	for _, m := range on {
		root := m.parent == rootParent && m.handle == shaper.RootMajor<<16
		if !root && m.parent>>16 != shaper.RootMajor {
			continue
		}
		c, err := countersOf(m)
		if err != nil {
			return sum, ours, err
		}
		if root {
			sum, ours = c, true
		} else {
			leaves += c.Drops
		}
	}
	sum.Drops = max(sum.Drops, leaves)
	return sum, ours, nil
}

func countersOf(m message) (Counters, error) {
	var c Counters
	var packets64 uint64
	err := attributes(m.stats, func(typ uint16, b []byte) error {
		switch typ {
		case statsBasic:
			if len(b) < 12 {
				return errors.New("parse tc statistics: too short")
			}
			c.Bytes, c.Packets = netlinkOrder.Uint64(b), uint64(u32(b, 8))
		case statsQueue:
			c.Backlog, c.Drops = uint64(u32(b, 4)), uint64(u32(b, 8))
		case statsPackets:
			if len(b) >= 8 {
				packets64 = netlinkOrder.Uint64(b)
			}
		}
		return nil
	})
	c.Packets = max(c.Packets, packets64)
	return c, err
}
