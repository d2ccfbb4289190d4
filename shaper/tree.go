package shaper

import (
	"fmt"
	"math/bits"
)

// Leaf names the kind of queue under the limit. All of them keep a saturated
// limit from filling a long queue; which one is used depends on the kernel.
type Leaf string

const (
	FQCodel Leaf = "fq_codel" // one leaf that schedules flows and manages their queues
	SFQ     Leaf = "sfq"      // one leaf that schedules flows
	Hashed  Leaf = "hashed"   // classes for small packets and for large ones, each for some senders or flows
)

// Handles are functions of what they serve, so that an agent that starts again
// recognises its own tree. RootMajor is "NG".
const (
	RootMajor = 0x4e47
	RootMinor = 0x1
	// OtherMinor is the class for what the filter cannot read. HTB's default class
	// cannot be changed in place, so it keeps its number in every version.
	OtherMinor     = 0x2
	SmallMinor     = 0x3  // the parent of the classes for small packets
	FlowMinor      = 0x10 // the first class for large packets
	SmallLeafMinor = 0x20 // the first class for small packets
	leafMajor      = 0x4e00
)

// Spread is how many queues a limit has. Packets to the container are spread over them by
// sender: a sender fills one queue only, and gets no larger part by opening more flows. Packets
// from the container are spread by flow. Each queue is a class of HTB. They are few, since the
// kernel searches all classes of the host for each new one (flow_indr_dev_setup_offload).
type Spread struct {
	Small uint16 // for packets up to SmallPacket
	Large uint16
}

// Spreads are those of the hashed leaf.
var Spreads = [2]Spread{Ingress: {Small: 8, Large: 8}, Egress: {Small: 4, Large: 4}}

// mostQueues is how many class numbers are free for small packets, and how many for large ones.
// Earlier versions used them all.
const mostQueues = 16

// SmallPacket is the greatest frame, in bytes, that goes to a class for small
// packets: acknowledgements, DNS, handshakes, voice. They pass the bulk queues.
const SmallPacket = 256

const (
	frameHeader = 14                   // Ethernet
	vlanTag     = 4                    // room in a segment for one
	superPacket = 64<<10 + frameHeader // what TSO, GSO and GRO build
	// tick is the unit, in nanoseconds, in which the kernel takes bursts
	// (PSCHED_SHIFT in include/net/pkt_sched.h).
	tick = 64
	// segmentBelow is the rate below which super-packets are cut into their segments before they
	// are queued: one would take more than two milliseconds on the wire.
	segmentBelow = 256 * Mbit
	// queueTime limits the length of a bulk queue. The queue may be longer to hold one
	// datagram.
	queueTime = 50 // a fiftieth of a second, 20 ms
	// smallQueueTime limits the length of a queue of small packets. Such a packet takes much
	// more memory than it has bytes.
	smallQueueTime = 8 * queueTime
	// fragmentHeader is what each fragment of a datagram, or each segment of a
	// batch, carries beside its payload (Ethernet, IPv6, fragment or UDP header).
	fragmentHeader = frameHeader + 40 + 8
	// batchSegments is the most segments that one UDP_SEGMENT batch has
	// (UDP_MAX_SEGMENTS, 64 before Linux 6.9).
	batchSegments = 128
)

// Class is one HTB class. Rates are in bytes a second, bursts in kernel ticks.
type Class struct {
	Minor, Parent uint16 // parent 0: the qdisc itself
	Rate, Ceil    uint64
	Burst, Cburst uint32
	Quantum, Prio uint32
}

// Queue is the qdisc of a leaf class.
type Queue struct {
	Class uint16 // minor of the class it hangs under
	Kind  string // "tbf", "bfifo", "fq_codel" or "sfq"
	Limit uint32 // tbf, bfifo: bytes; fq_codel, sfq: packets

	// tbf, used as a queue counted in bytes which cuts super-packets into their
	// segments. Rate is so high that it never holds a packet back.
	Rate   uint64
	Buffer uint32 // ticks; Rate x Buffer is the greatest packet not cut

	// fq_codel
	Target, Interval, Memory, Quantum uint32 // us, us, bytes, bytes

	// Backlog is how many bytes wait in it. Only a queue that was read from the kernel has it.
	Backlog uint32
}

// Handle is the qdisc's own major number.
func (q Queue) Handle() uint16 { return leafMajor + q.Class }

// Tree is everything that shapes one direction of one endpoint.
type Tree struct {
	Leaf     Leaf
	Default  uint16 // minor of the class for what no filter names
	Classes  []Class
	Queues   []Queue
	Classify bool // a filter spreads packets over the classes
	// Burst is how many bytes may pass beyond rate x time, all classes together.
	Burst Size
}

// Build gives the tree for a limit on a link with the given MTU. A burst that is
// zero is derived: a millisecond of the rate, and never less than two packets.
func Build(lim Limit, dir Direction, mtu int, leaf Leaf) (Tree, error) {
	frame := uint64(mtu + frameHeader)
	rate := lim.Rate.bytesPerSecond()
	if rate == 0 {
		return Tree{}, fmt.Errorf("build tree: rate %v is less than a byte a second", lim.Rate)
	}
	t := Tree{Leaf: leaf, Default: RootMinor}
	largest := uint64(superPacket)
	quantum := uint32(superPacket)
	if leaf == Hashed && lim.Rate < segmentBelow {
		largest, quantum = frame, uint32(frame)
	}
	// ahead is what can pass beyond the burst of the root class: each class that is at rest
	// may send once before its tokens are gone.
	small := max(rate/2/1000, SmallPacket)
	spread := Spreads[dir]
	ahead := largest
	if leaf == Hashed {
		ahead += uint64(spread.Large)*largest + uint64(spread.Small)*SmallPacket + small + 2*SmallPacket
	}
	burst := max(rate/1000, 2*frame)
	if lim.Burst != 0 {
		burst = max(uint64(lim.Burst), ahead+2*frame) - ahead
	}
	ticks, err := Ticks(burst, rate)
	if err != nil {
		return Tree{}, fmt.Errorf("build tree for %v: %w", lim.Rate, err)
	}
	t.Burst = Size(burst + ahead)
	t.Classes = []Class{{Minor: RootMinor, Rate: rate, Ceil: rate, Burst: ticks, Cburst: ticks, Quantum: superPacket}}
	if leaf != Hashed {
		t.Queues = []Queue{scheduler(leaf, rate, frame)}
		return t, nil
	}
	t.Default, t.Classify = OtherMinor, true
	// Half of the rate is guaranteed to small packets, half to large ones. HTB first serves
	// classes within their guarantee. Then it serves classes that borrow, those that borrow
	// from a lower parent first. So small packets that borrow from their half pass before
	// packets that borrow from the whole.
	share := max(rate/2/uint64(spread.Small+1), 1)
	t.addLeaf(RootMinor, share, 0, quantum, queue(OtherMinor, rate, frame, largest))
	t.addClass(SmallMinor, RootMinor, max(rate/2-share, 1), small, superPacket)
	for i := range spread.Small {
		t.addLeaf(SmallMinor, share, 0, SmallPacket, smallQueue(SmallLeafMinor+i, rate, frame))
	}
	for i := range spread.Large {
		t.addLeaf(RootMinor, max(rate/2/uint64(spread.Large), 1), 0, quantum, queue(FlowMinor+i, rate, frame, largest))
	}
	return t, nil
}

// addLeaf hangs a class with its queue under a parent.
func (t *Tree) addLeaf(parent uint16, rate, burst uint64, quantum uint32, q Queue) {
	t.addClass(q.Class, parent, rate, burst, quantum)
	t.Queues = append(t.Queues, q)
}

// addClass adds a class with a guaranteed rate. A burst that is too long at this rate is cut,
// not refused: the burst is netguard's own choice.
func (t *Tree) addClass(minor, parent uint16, rate, burst uint64, quantum uint32) {
	root := t.Classes[0]
	ticks := uint32(1)
	if n, err := Ticks(burst, rate); err == nil {
		ticks = max(n, 1)
	}
	t.Classes = append(t.Classes, Class{Minor: minor, Parent: parent, Rate: rate, Ceil: root.Ceil,
		Burst: ticks, Cburst: root.Cburst, Quantum: quantum})
}

// datagram is how many bytes of frames the largest datagram takes, in fragments or
// as a batch of segments. All of them arrive at once, and the loss of one loses the
// datagram, so no queue may be shorter.
func datagram(frame uint64) uint64 {
	const payload = 64 << 10
	piece := max(frame, fragmentHeader+8+8) - fragmentHeader - 7 // all but the last are multiples of eight
	return payload + max((payload+piece-1)/piece, batchSegments)*fragmentHeader
}

// fragments is how many frames the largest datagram takes.
func fragments(frame uint64) uint64 { return datagram(frame)/frame + 1 }

// queue is a byte queue of 20 ms, or of one datagram where that is longer.
func queue(class uint16, rate, frame, largest uint64) Queue {
	limit := max(rate/queueTime, datagram(frame))
	q := Queue{Class: class, Kind: "tbf", Limit: uint32(min(limit, 1<<31))}
	if largest <= frame {
		// One tick at this rate is just the greatest frame.
		q.Buffer, q.Rate = 1, (frame+vlanTag)*1e9/tick
		return q
	}
	// Far above one super-packet, so that none is cut or held back.
	q.Buffer, q.Rate = 64, 1e12
	return q
}

// smallQueue is a byte queue for packets that need no cutting.
func smallQueue(class uint16, rate, frame uint64) Queue {
	limit := max(rate/smallQueueTime, datagram(frame))
	return Queue{Class: class, Kind: "bfifo", Limit: uint32(min(limit, 1<<31))}
}

func scheduler(leaf Leaf, rate, frame uint64) Queue {
	q := Queue{Class: RootMinor, Kind: string(leaf)}
	if leaf == SFQ {
		// The limit is in packets: sfq counts nothing else, and a super-packet counts as one.
		// sfq drops from the longest queue. So the limit has room for more than one datagram.
		q.Limit = uint32(min(max(rate/queueTime/frame, fragments(frame)+16), 127))
		q.Quantum = uint32(frame)
		return q
	}
	// CoDel's target must leave room for a packet and a half on the wire. It drops
	// what waits above the target for a whole interval, so an interval is never
	// shorter than one datagram takes.
	q.Target = uint32(max(5000, 1500000*frame/rate))
	q.Interval = max(100000, 2*q.Target, uint32(min(datagram(frame)*1500000/rate, 1<<31)))
	q.Limit, q.Quantum = 10240, uint32(frame)
	q.Memory = uint32(min(max(rate/4, 1<<20), 32<<20))
	return q
}

// Ticks is how long a burst of bytes takes at a rate in bytes a second, in kernel ticks. It
// returns an error if the result does not fit the kernel's 32 bits; tc lets it wrap.
func Ticks(bytes, rate uint64) (uint32, error) {
	if rate == 0 {
		return 0, fmt.Errorf("a burst needs a rate")
	}
	const most = 1<<32 - 1
	hi, lo := bits.Mul64(bytes, 1e9)
	var ns uint64
	if hi < rate {
		ns, _ = bits.Div64(hi, lo, rate)
	}
	if hi >= rate || ns/tick > most {
		return 0, fmt.Errorf("a burst of %d bytes takes more than the %d s that the kernel can count at this rate: make it smaller",
			bytes, most*tick/1_000_000_000)
	}
	return uint32(ns / tick), nil
}
