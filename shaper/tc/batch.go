package tc

import (
	"errors"

	"github.com/mdlayher/netlink"

	"netguard/internal/fault"
	"netguard/shaper"
)

// batchSize is how many messages are sent at once. The kernel's answers to all of
// them wait in the socket's receive buffer.
const batchSize = 64

// batched tells whether a step is one message about a device's own tree, so that it
// can be sent together with its neighbours.
func batched(op shaper.Op) bool {
	switch op {
	case shaper.AddRoot, shaper.AddClass, shaper.ChangeClass, shaper.AddQueue, shaper.ChangeQueue:
		return true
	}
	return false
}

// run gives how many steps at the beginning can be sent together.
func run(steps []shaper.Step) int {
	n := 0
	for n < len(steps) && n < batchSize && batched(steps[n].Op) && steps[n].Device == steps[0].Device {
		n++
	}
	return n
}

// sendTree carries out steps of one device's tree. The kernel tries all of them
// even where one fails: what needs the failed one fails as well, and a fresh Diff
// sees what is there.
func (d *Driver) sendTree(dev int, steps []shaper.Step) error {
	var direct uint32
	if steps[0].Op == shaper.AddRoot {
		if l, err := d.link(dev, ""); err == nil && l.queueLen == 0 {
			direct = wasNoQueue
		}
	}
	messages := make([]netlink.Message, len(steps))
	for i, s := range steps {
		m, err := encode(dev, direct, s)
		if err != nil {
			return shaper.StepError{Step: s, Err: err}
		}
		messages[i] = m
	}
	return fault.Write("tc tree", func() error {
		failed, err := d.send(messages)
		if err == nil {
			return nil
		}
		if steps[failed].Op == shaper.AddRoot {
			err = occupied(err)
		}
		return shaper.StepError{Step: steps[failed], Err: err}
	})
}

// send sends messages together and waits until the kernel has tried the last. It
// gives the first that failed.
func (d *Driver) send(messages []netlink.Message) (failed int, err error) {
	fault := d.conn.Exchange(messages, nothing, func(at int, e error) {
		if err == nil {
			failed, err = at, e
		}
	})
	return failed, errors.Join(err, fault)
}
