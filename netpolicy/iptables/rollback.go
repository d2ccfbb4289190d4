package iptables

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	var names []string
	for _, s := range done.created {
		if i := index(s.ipv6); !done.inForce[i] {
			names = append(names, s.name)
		}
	}
	_, err := d.release(ctx, names)
	return errors.Join(append(faults, err)...)
}

// index is the index of a family in arrays with one entry for each.
func index(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

// release destroys sets, and counts those that are gone. nf_tables releases the sets of a rule a
// little after the rule is gone, so release waits, once for all of them: a foreign rule that leads
// to an old chain may keep each set that the old rules name. If it waits in vain, another program
// uses the set, and release does not wait for that set again. A set that cannot be destroyed does
// not keep the others.
func (d *Driver) release(ctx context.Context, names []string) (n int, err error) {
	var faults []error
	for wait := time.Millisecond; ; wait *= 2 {
		var busy []string
		for _, name := range names {
			err := d.sets.destroy(name)
			switch held := errors.Is(err, nl.IPSetError(nl.IPSET_ERR_BUSY)); {
			case held && !d.stuck[name] && wait <= time.Second:
				busy = append(busy, name)
				continue
			case held:
				d.stuck[name] = true
				err = fmt.Errorf("%w (a rule or set of somebody else's that names it keeps it: delete that)", err)
			default:
				delete(d.stuck, name)
			}
			if faults = append(faults, err); err == nil {
				n++
			}
		}
		if len(busy) == 0 {
			return n, errors.Join(faults...)
		}
		names = busy
		select {
		case <-ctx.Done():
			return n, errors.Join(append(faults, fmt.Errorf("destroy sets %s: %w", strings.Join(names, ", "), ctx.Err()))...)
		case <-time.After(wait):
		}
	}
}
