package link

// maxHint is how many things a hint names before it says "look at all".
const maxHint = 1024

// Hint names what the kernel reported since the last hint. It is never more than a reason
// to look. It also names the reader's own changes, except those of queues by sockets that the
// reader gave to Ignore.
//
//   - Links: a veth, bridge, IFB or bridge port came, went or changed; the addresses of a
//     bridge changed; a qdisc, class or filter changed on any device.
//   - MACs: a static FDB entry came, went or changed.
//   - Neighbours: a neighbour entry that names its program came, went or changed.
type Hint struct {
	Full       bool // look at all
	Links      map[int]struct{}
	MACs       map[MAC]struct{} // of FDB entries, on whichever bridge
	Neighbours map[Neighbour]struct{}
}

// Empty says that nothing changed.
func (h Hint) Empty() bool {
	return !h.Full && len(h.Links) == 0 && len(h.MACs) == 0 && len(h.Neighbours) == 0
}

func (h *Hint) add(index int) { note(h, &h.Links, index) }

func (h *Hint) addMAC(m MAC) { note(h, &h.MACs, m) }

func (h *Hint) addNeighbour(n Neighbour) { note(h, &h.Neighbours, n) }

func note[K comparable](h *Hint, set *map[K]struct{}, key K) {
	if h.Full {
		return
	}
	if *set == nil {
		*set = map[K]struct{}{}
	}
	(*set)[key] = struct{}{}
	if len(*set) > maxHint {
		h.all()
	}
}

func (h *Hint) all() { *h = Hint{Full: true} }
