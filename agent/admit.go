package agent

// verdict is what the agent says of an endpoint's port.
type verdict int

const (
	refuse verdict = iota
	// leave keeps it as it is in the kernel: an earlier agent may have admitted it.
	leave
	admit
)

// admit tells whether all that an endpoint should have is in the kernel.
func (l *loop) admit(d *desire, p *policing) verdict {
	seen := d.Port.Seen
	if len(d.wrong) > 0 || p.within(d.Key, d.Network.Bridge) != nil {
		delete(l.admitted, seen)
		return refuse
	}
	failing := l.shaping.fault(seen) != nil
	if l.shaping.inForce(d) && l.police.holds && !p.behind(d.Key) && !l.handover.blind() && !l.handover.waits(d) {
		l.admitted[seen] = true
	}
	switch {
	case l.admitted[seen]:
		return admit
	case !l.police.ever, l.handover.blind():
		// What holds for it is what an earlier agent wrote.
		return leave
	case failing && l.police.holds:
		// Its limit cannot be put in place: that lets nobody in, and throws nobody out.
		return leave
	}
	return refuse
}
