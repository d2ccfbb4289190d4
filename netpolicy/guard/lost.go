package guard

import "maps"

// jailedByUs finds ports that are closed as netguard closes them and of which no record
// is left, nor a neighbour by which recover would find them: those that were not
// admitted when somebody removed the table, and where the kernel has no table. Nobody
// else sets a port so: to be locked, learn nothing, take nothing that is flooded, and
// forward all link-local groups.
//
// Only a clean-up asks. An agent that begins has a wish for such ports, and where it
// has none yet they stay closed.
func (d *Driver) jailedByUs() {
	k := &d.kernel
	for index, p := range k.ports {
		if _, recorded := k.before[index]; !recorded && p.settings == d.features.able(jailed) {
			k.before[index] = portDefaults
		}
	}
}

// prune drops what is known of ports that the wish does not name, once there is nothing
// to be done about them. With a table that is due when their records go from it.
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
