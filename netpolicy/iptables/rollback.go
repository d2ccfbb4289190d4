package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// progress is what has to be undone if a step fails.
type progress struct {
	created []setSpec
	built   [2][]string // chains, by family
	inForce [2]bool     // packets meet them: there is no way back
}

// undo removes what was made for a wish that failed: chains that nothing leads to, and sets that
// no rule names.
func (d *Driver) undo(k *kernel, done *progress) error {
	// The caller's context may be over.
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

// index is the index of a family in arrays with one entry for each.
func index(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

// release destroys a set. nf_tables releases the sets of a rule a little after the rule is
// gone, so release waits. If it waits in vain, another program uses the set, and release does
// not wait for that set again.
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
