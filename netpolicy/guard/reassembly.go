package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

// The host puts fragments together before it judges them: fragments to itself, fragments that
// it routes and, with br_netfilter, fragments between ports of a bridge. Fragments that wait
// for the rest of their datagram share one pool of memory in a network namespace, 4 MB for
// 30 s by default. A container fills that pool with a hundred fragments a second whose rest
// never comes. Then no datagram arrives any more that does not fit a frame. Rules cannot tell
// such fragments from honest ones. So each port has a rate, in packets and in bytes. The host
// waits for a shorter time and has more memory. One port can occupy an eighth of it at most,
// and a quarter where frames are longer than Ethernet's.
//
// The table records what the host was set to before, as it does for ports.

// DefaultFragmentRate is how many fragments a second a port may send.
const DefaultFragmentRate = 6000

// MaxFragmentRate is the highest that the meters take.
const MaxFragmentRate = 1 << 20

const (
	// reassemblyTime is how long the host waits for the rest of a datagram, in seconds.
	reassemblyTime = 2
	// reassemblyMemory is how many bytes wait at most; on a small host an eighth of its
	// memory.
	reassemblyMemory = 256 << 20
)

// reassembly is what the kernel was seen to have of the knobs.
type reassembly struct {
	now    map[int]string // of those that are there
	before map[int]string // of those on record
	// refused are the knobs that cannot be read or written, and why.
	refused map[int]error
	memory  uint64
	files   [len(knobs)]*os.File // of knobs; nil where they are not open
}

// element is a knob's key in the set; the comment has what it was.
func (k *reassembly) element(i int) element {
	return element{key: string(binaryutil.NativeEndian.PutUint32(uint32(i)))}
}

func (k *reassembly) comment(i int) string {
	if text, ok := k.before[i]; ok {
		return record + text
	}
	return record + k.now[i]
}

// here names the network namespace of this thread: the files below /proc/sys/net are those of
// the thread that opens them.
func here() (uint64, error) {
	var s unix.Stat_t
	err := unix.Stat("/proc/thread-self/ns/net", &s)
	return s.Ino, err
}

// observeReassembly reads the knobs.
func (d *Driver) observeReassembly(full bool) error {
	k := &d.kernel.reassembly
	for e, comment := range d.kernel.table.sets[setReassembly] {
		if text, ok := strings.CutPrefix(comment, record); ok && len(e.key) == 4 {
			if k.before == nil {
				k.before = map[int]string{}
			}
			k.before[int(binaryutil.NativeEndian.Uint32([]byte(e.key)))] = text
		}
	}
	if !full || !d.features.Filter {
		return nil
	}
	if ns, err := here(); err != nil || ns != d.namespace {
		return err
	}
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return fmt.Errorf("ask for the size of memory: %w", err)
	}
	k.memory = min(reassemblyMemory, uint64(s.Totalram)*uint64(s.Unit)/8)
	k.now, k.refused = map[int]string{}, map[int]error{}
	for i := range knobs {
		text, err := k.read(i)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			k.refused[i] = err
		default:
			k.now[i] = text
		}
	}
	return nil
}

// tunes tells whether the knobs are netguard's to set.
func (o Options) tunes(f Features) bool {
	return f.Filter && o.Mode == Enforce && o.FragmentRate != 0
}

// reassembly works out what the knobs shall be, and which are to be on record.
func (p *plan) reassembly(k *reassembly, o Options, f Features) {
	p.knobs = map[int]string{}
	for i := range knobs {
		before, recorded := k.before[i]
		if !recorded {
			before = k.now[i]
		}
		if want, ok := knobs[i].better(before, k.memory); ok && o.tunes(f) {
			p.knobs[i] = want
			p.sets[setReassembly][k.element(i)] = ""
		}
	}
}

// diffReassembly compares. A value that is better than netguard's stays, also when netguard
// goes: somebody else set it.
func diffReassembly(w *work, p *plan, k *reassembly) {
	for i, n := range knobs {
		now, there := k.now[i]
		if !there || k.refused[i] != nil {
			continue
		}
		want, wanted := p.knobs[i]
		switch before, recorded := k.before[i]; {
		case wanted:
			if _, worse := n.better(now, k.memory); !worse {
				continue
			}
		case recorded && !n.beyond(now, k.memory):
			want = before
		default:
			continue
		}
		if want != now {
			w.settings = append(w.settings, step{op: opKnob, knob: i, value: want})
		}
	}
}

// turn sets a knob. Where /proc/sys cannot be written to, that is no failure:
// Report.Warnings says so.
func (d *Driver) turn(s step) error {
	n := knobs[s.knob]
	if ns, err := here(); err != nil || ns != d.namespace {
		return errors.Join(err, fmt.Errorf("set %s: this is another network namespace", n))
	}
	err := fault.Write("sysctl", func() error { return os.WriteFile(sysctls+n.path, []byte(s.value+"\n"), 0) })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		delete(d.kernel.reassembly.now, s.knob)
		return nil
	case err != nil && d.plan != nil:
		d.kernel.reassembly.refused[s.knob] = err
		return nil
	case err != nil:
		return fmt.Errorf("set %s to %s: %w", n, s.value, err)
	}
	d.kernel.reassembly.now[s.knob] = s.value
	return nil
}

// warnings are what an operator should know of the knobs.
func (d *Driver) warnings() []string {
	var out []string
	k := &d.kernel.reassembly
	for i, n := range knobs {
		err := k.refused[i]
		want, wanted := d.plan.knobs[i]
		what := "set to " + want
		if _, read := k.now[i]; !read { // so the plan may not know what it wants
			what, wanted = "read", d.wish.tunes(d.features)
		}
		if err != nil && wanted {
			out = append(out, fmt.Sprintf("%s cannot be %s: one container's fragments can keep everybody's from being put together (set it in /etc/sysctl.d): %v", n, what, err))
		}
	}
	return out
}

// aFragment4 and aFragment6 hold for all pieces of a datagram. In IPv6, the header of a
// fragment may be behind other headers.
var (
	aFragment4 = ip4Frag.anyBit(0x3f, 0xff)
	aFragment6 = fragment.noBit(0, 0) // one that can be read
)

func fragmentSets() []setSpec {
	key := []nftables.SetDatatype{nftables.TypeIFIndex}
	return []setSpec{
		{name: setFragments, key: key, size: maxPorts, dynamic: true, timeout: true},
		{name: setFragmentBytes, key: key, size: maxPorts, dynamic: true, timeout: true},
		{name: setReassembly, key: []nftables.SetDatatype{nftables.TypeMark}, size: 64},
	}
}

// fragments adds the meters of fragments.
func (b *builder) fragments(o Options, f Features) {
	if o.FragmentRate == 0 {
		return
	}
	rate := uint64(o.FragmentRate)
	// Only the meter of frames needs a burst. A meter of bytes always lets the bytes of one
	// second pass at once.
	burst := max(rate/3, 64)
	b.refuse("fragments", "more than the host can wait for", kindFragments, beyond(setFragments, Storm{Rate: rate, Burst: uint32(burst)}, meterLife, inPort))
	b.refuse("fragments", "more bytes than the host can wait for", kindFragments, overBytes(setFragmentBytes, rate*ordinary, 0))
	if !o.closed() {
		return // unknown ports may send fragments then; monitor mode counts all their frames
	}
	// Unknown ports may send no fragments: the host would put them together before the rules
	// about such ports refuse them. Where rules see bridges, these frames are refused before.
	strange := func(name string, verdict expr.Any, parts ...match) {
		b.add("prerouting", name, verdict, append([]match{etherType.is(8, 0), aFragment4, notIn(setKnown, inPort)}, parts...)...)
		b.add("prerouting", name, verdict, append([]match{etherType.is(0x86, 0xdd), aFragment6, notIn(setKnown, inPort)}, parts...)...)
	}
	if !f.BridgeNames && f.Prefixes {
		strange("fragment from an unknown port", goTo("which-bridge"), aVeth)
	}
}

// paced leads fragments to their meters. A fragment within the rate comes back.
func (b *builder) paced(chain string, o Options, isFragment match) {
	if o.FragmentRate != 0 {
		b.add(chain, "fragment", &expr.Verdict{Kind: expr.VerdictJump, Chain: "fragments"}, isFragment)
	}
}

// release keeps the records of knobs that could not be put back: it takes them out of all. It
// forgets the other knobs.
func (k *reassembly) release(all elements) {
	for i := range knobs {
		e := k.element(i)
		if _, ok := all[e]; !ok {
			continue
		}
		if k.refused[i] != nil {
			delete(all, e)
		} else {
			delete(k.before, i)
		}
	}
}
