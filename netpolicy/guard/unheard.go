package guard

import (
	"maps"
	"slices"
)

// The kernel does not report everything, and its messages may get lost unseen. So each look at
// what it does not report also reads one part of all the rest: in wholeIn looks, everything.
const wholeIn = 30

// widen adds a part of the ports to a look, another part each time. It returns true at the end
// of a round. The caller then also reads the tables and all neighbours.
func (d *Driver) widen(look Look) (Look, bool) {
	links := map[int]struct{}{}
	maps.Copy(links, look.Links)
	all := sortedKeys(d.plan.ports)
	for _, index := range all[d.round*len(all)/wholeIn : (d.round+1)*len(all)/wholeIn] {
		links[index] = struct{}{}
	}
	look.Links = links
	d.round = (d.round + 1) % wholeIn
	return look, d.round == 0
}

// observeAttached reads which programs ports have.
func (d *Driver) observeAttached(seen *scope) error {
	for index := range d.plan.ports {
		was := d.kernel.programs[index]
		if err := d.observePrograms(index); err != nil {
			return err
		}
		if slices.Equal(was, d.kernel.programs[index]) {
			continue
		}
		seen.ports[index] = struct{}{}
		if err := d.observeLink(index); err != nil { // programs go with their port
			return err
		}
	}
	return nil
}
