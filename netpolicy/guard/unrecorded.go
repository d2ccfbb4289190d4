package guard

import "maps"

// quarantinedByUs finds quarantined ports without a record. The recover method cannot find such
// a port, since it has no neighbour entry. The port was not admitted when somebody removed the
// table, or the kernel has no tables. Nobody else gives a port these settings: locked, no
// learning, no flooding, and all link-local groups forwarded.
//
// Only a clean-up asks. An agent that starts has a wish for such ports. Until it has one, they
// stay closed.
func (d *Driver) quarantinedByUs() {
	k := &d.kernel
	for index, p := range k.ports {
		if _, recorded := k.before[index]; !recorded && p.settings == d.features.able(quarantined) {
			k.before[index] = portDefaults
		}
	}
}

// prune forgets ports that the wish does not name, once nothing is left to do about them.
// Where there is a table, ports are forgotten when their records leave it.
func (d *Driver) prune(left work) {
	about := left.about()
	dead := func(index int) bool {
		pp, wished := d.plan.ports[index]
		return (!wished || pp.state == Trusted) && len(about[index])+len(d.failed[index]) == 0
	}
	maps.DeleteFunc(d.seen, func(index int, _ Port) bool { return dead(index) })
	maps.DeleteFunc(d.kernel.before, func(index int, _ settings) bool { return dead(index) })
	maps.DeleteFunc(d.kernel.pins, func(index int, _ map[MAC]fdbEntry) bool { return dead(index) })
	maps.DeleteFunc(d.kernel.programs, func(index int, _ []attached) bool { return dead(index) })
}
