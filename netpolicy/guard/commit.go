package guard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

// chunk is how many elements go into one message: the attribute that holds them
// has a length of 16 bits.
const chunk = 256

// change is one transaction: all of it happens, or nothing.
type change struct {
	// replace makes the table anew, with this layout.
	replace  *layout
	existing bool // there is one to be removed
	// chains are all that the one there has, if only they go: its sets stay, and
	// so do the counters in them.
	chains   []string
	add, del map[string]elements
}

func (c change) empty() bool { return c.replace == nil && size(c.add)+size(c.del) == 0 }

func size(sets map[string]elements) (n int) {
	for _, s := range sets {
		n += len(s)
	}
	return n
}

// commit sends a transaction.
func (f *filter) commit(c change, specs []setSpec) error {
	t := f.table()
	if c.replace != nil {
		switch {
		case len(c.chains) > 0:
			f.empty(t, c.chains, c.replace.sets)
		case c.existing:
			f.nft.DelTable(t)
			fallthrough
		default:
			if err := f.create(t, c.replace.sets); err != nil {
				return err
			}
		}
		f.rules(t, *c.replace)
	}
	for _, spec := range specs {
		set := spec.build(t)
		// What goes first makes room for what comes: an element may be
		// replaced by a wider one.
		if err := inChunks(c.del[spec.name], func(e []nftables.SetElement) error {
			return f.nft.SetDeleteElements(set, e)
		}); err != nil {
			return fmt.Errorf("delete from set %s: %w", spec.name, err)
		}
		if err := inChunks(c.add[spec.name], func(e []nftables.SetElement) error {
			return f.nft.SetAddElements(set, e)
		}); err != nil {
			return fmt.Errorf("add to set %s: %w", spec.name, err)
		}
	}
	f.deadline()
	if err := fault.Write("nft batch", f.nft.Flush); err != nil {
		return errors.Join(fmt.Errorf("change table %s: %w", f.title(), err), f.reopen())
	}
	return nil
}

// create adds the table with its sets.
func (f *filter) create(t *nftables.Table, sets []setSpec) error {
	f.nft.AddTable(t)
	for _, spec := range sets {
		if _, err := f.addSet(spec); err != nil {
			return err
		}
	}
	return nil
}

// empty removes all chains of the table, and what its meters know of the rates that
// they were made with.
func (f *filter) empty(t *nftables.Table, chains []string, sets []setSpec) {
	for _, name := range chains {
		f.nft.FlushChain(&nftables.Chain{Table: t, Name: name})
	}
	for _, name := range chains {
		f.nft.DelChain(&nftables.Chain{Table: t, Name: name})
	}
	for _, spec := range sets {
		if spec.dynamic && !spec.counter {
			f.nft.FlushSet(spec.build(t))
		}
	}
}

// rules adds the chains and rules.
func (f *filter) rules(t *nftables.Table, l layout) {
	// The format first: it stays when the others are replaced, so a repaired table
	// is listed as it was.
	f.nft.AddChain(&nftables.Chain{Table: t, Name: formatPrefix + strconv.Itoa(Format)})
	f.nft.AddChain(&nftables.Chain{Table: t, Name: l.id})
	for _, name := range l.chains {
		f.nft.AddChain(buildChain(t, name))
	}
	for _, r := range l.rules {
		f.nft.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: r.chain}, Exprs: r.exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
	}
}

// remove deletes the table; one that is not there is fine.
func (f *filter) remove() error {
	f.nft.DelTable(f.table())
	f.deadline()
	err := fault.Write("nft delete table", f.nft.Flush)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		return f.reopen()
	}
	return errors.Join(fmt.Errorf("delete table %s: %w", f.title(), err), f.reopen())
}

func inChunks(all elements, send func([]nftables.SetElement) error) error {
	for part := range slices.Chunk(slices.Collect(maps.Keys(all)), chunk) {
		list := make([]nftables.SetElement, len(part))
		for i, e := range part {
			list[i] = e.build(all[e])
		}
		if err := send(list); err != nil {
			return err
		}
	}
	return nil
}
