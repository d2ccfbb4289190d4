package tc

import (
	"errors"
	"fmt"
	"slices"

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
		if link, err := d.links.LinkByIndex(dev); err == nil && link.Attrs().TxQLen == 0 {
			direct = wasNoQueue
		}
	}
	messages := make([]netlink.Message, len(steps))
	for i, s := range steps {
		m, err := encode(dev, direct, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
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
		return fmt.Errorf("%s: %w", steps[failed], err)
	})
}

// send sends messages together and waits until the kernel has tried the last. It
// gives the first that failed.
func (d *Driver) send(messages []netlink.Message) (failed int, err error) {
	last := &messages[len(messages)-1]
	for i := range messages {
		messages[i].Header.Flags &^= netlink.Acknowledge // a failure is answered all the same
	}
	last.Header.Flags |= netlink.Acknowledge
	sent, err := d.read.SendMessages(messages)
	if err != nil {
		return 0, err
	}
	for {
		_, e := d.read.Receive()
		var answer *netlink.OpError
		switch {
		case e == nil: // only the last one is answered if it did not fail
			return failed, err
		case !errors.As(e, &answer) || answer.Sequence == 0:
			return failed, errors.Join(err, e) // it is the socket's fault
		}
		if at := slices.IndexFunc(sent, func(m netlink.Message) bool { return m.Header.Sequence == answer.Sequence }); err == nil && at >= 0 {
			failed, err = at, e
		}
		if answer.Sequence == last.Header.Sequence {
			return failed, err
		}
	}
}
