package link

// maxHint is how many links a hint names before it says "look at all".
const maxHint = 1024

// Hint names the links about which the kernel said something: a veth, bridge or
// IFB that came, went or changed, bridge port flags that changed, or a qdisc,
// class or filter that changed on any device. It is never more than a reason to
// look. The reader's own changes are among them.
type Hint struct {
	Full  bool // look at all
	Links map[int]struct{}
}

// Empty says that nothing changed.
func (h Hint) Empty() bool { return !h.Full && len(h.Links) == 0 }

func (h *Hint) add(index int) {
	if h.Full {
		return
	}
	if h.Links == nil {
		h.Links = map[int]struct{}{}
	}
	h.Links[index] = struct{}{}
	if len(h.Links) > maxHint {
		h.all()
	}
}

func (h *Hint) all() { *h = Hint{Full: true} }
