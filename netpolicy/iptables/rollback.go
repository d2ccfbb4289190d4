package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// progress is what there is to take back if a step fails.
type progress struct {
	created []setSpec
	built   [2][]string // chains, by family
	inForce [2]bool     // packets are led there: there is no way back
}

// undo takes back what was made for a wish that could not be fulfilled: chains
// that nothing leads to, and sets that no rule names.
func (d *Driver) undo(k *kernel, done *progress) error {
	// Not with the caller's context: it may be what ended the work.
	ctx, cancel := context.WithTimeout(context.Background(), d.options.Wait+answerWithin)
	defer cancel()
	var faults []error
	for i, chains := range done.built {
		if len(chains) > 0 && !done.inForce[i] {
			faults = append(faults, k.active.write(ctx, i, transaction(nil, removalOf(chains))))
		}
	}
	for _, s := range done.created {
		if i := index(s.ipv6); !done.inForce[i] {
			faults = append(faults, d.release(ctx, s.name))
		}
	}
	return errors.Join(faults...)
}

// index is that of a family in whatever has one entry for each.
func index(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

// release destroys a set. nf_tables lets go of the sets of a rule a little after
// the rule is gone, and tells nobody when. A set that was waited for in vain is
// somebody else's to let go of, and not waited for again.
func (d *Driver) release(ctx context.Context, name string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := d.sets.destroy(name)
		if !errors.Is(err, nl.IPSetError(nl.IPSET_ERR_BUSY)) {
			delete(d.stuck, name)
			return err
		}
		if d.stuck[name] || wait > time.Second {
			d.stuck[name] = true
			return fmt.Errorf("%w (a rule or set of somebody else's that names it keeps it: delete that)", err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
	}
}
