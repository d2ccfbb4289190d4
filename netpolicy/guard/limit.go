package guard

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The second table, of the family inet, limits how many connections containers have open.
// The kernel counts them. It notes each connection that a container opens, and forgets it
// when the entry in the table of connections is closed or goes.
//
// To count, the kernel walks through all connections under the same key. So an address has
// many keys, and each connection goes to the next key: that keeps the walks short. The kernel
// does not count for each packet of a flood: an address that was refused a connection gets
// none for a moment.
//
// The rules look at new connections, after all other rules: a connection that policies or
// Docker refuse does not count. Each address of a container counts by itself. Addresses that
// a label allows by prefix do not count.

// The sets of the table, by family.
const (
	setMax4, setMax6         = "max4", "max6"         // address: chain of its limit
	setOpen4, setOpen6       = "open4", "open6"       // address . share . limit, with the kernel's count
	setFull4, setFull6       = "full4", "full6"       // addresses that were refused a connection a moment ago
	setRefused4, setRefused6 = "refused4", "refused6" // address, with a counter
)

const (
	// fullFor is how long an address stays in the full sets.
	fullFor = 100 * time.Millisecond
	// A key has at least shareSize connections, and a container at most maxShares keys. Up
	// to exactBelow a limit has one key, so that it is exact.
	shareSize  = 256
	maxShares  = 256
	exactBelow = 1024
	// maxLimits is how many different limits are exact. If labels ask for more, all limits
	// are lowered to powers of two: labels cannot fill the kernel with chains.
	maxLimits = 64

	// limitPriority is after iptables' filter (0) and before sources are translated (100).
	limitPriority = 5

	maxPrefix = "max-"
)

// shares gives how many keys a limit has, and how many connections each key.
func shares(limit uint32) (n, each uint32) {
	if limit <= exactBelow {
		return 1, limit
	}
	n = min(limit/shareSize, maxShares)
	return n, limit / n
}

func limitSets() []setSpec {
	out := []setSpec{hostBridges(), {name: setGuests, key: []nftables.SetDatatype{nftables.TypeIFIndex}, size: maxBridges}}
	for _, f := range ipFamilies {
		key := func(t ...nftables.SetDatatype) []nftables.SetDatatype {
			return append([]nftables.SetDatatype{f.typ}, t...)
		}
		out = append(out,
			setSpec{name: f.max, key: key(), leads: true, size: 4 * maxPorts},
			// The kernel takes an element away when it counts nothing any more.
			setSpec{name: f.open, key: key(nftables.TypeMark, nftables.TypeMark), size: maxPorts * maxShares, dynamic: true},
			setSpec{name: f.full, key: key(), size: 4 * maxPorts, dynamic: true, timeout: true},
			setSpec{name: f.refused, key: key(), size: 4 * maxPorts, dynamic: true, counter: true})
	}
	return out
}

var (
	nfproto  = meta(expr.MetaKeyNFPROTO, 1)
	ctState  = field{func(r uint32) expr.Any { return &expr.Ct{Key: expr.CtKeySTATE, Register: r} }, 4}
	ctStatus = field{func(r uint32) expr.Any { return &expr.Ct{Key: expr.CtKeySTATUS, Register: r} }, 4}
)

const (
	ctRelated   = 1 << 2 // of ct state
	ctNew       = 1 << 3
	ctConfirmed = 1 << 3 // of ct status: it has an entry in the table
)

func word(n uint32) []byte { return binaryutil.NativeEndian.PutUint32(n) }

// ipFamily is the part of the rules that depends on the family.
type ipFamily struct {
	chain                    string
	number                   byte
	typ                      nftables.SetDatatype
	from                     field
	max, open, full, refused string
}

var ipFamilies = []ipFamily{
	{"ipv4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, ip4From, setMax4, setOpen4, setFull4, setRefused4},
	{"ipv6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, ip6From, setMax6, setOpen6, setFull6, setRefused6},
}

// note puts the address, which begins in the first register, into a set.
func note(set string, op uint32, timeout time.Duration, with ...expr.Any) match {
	return match{&expr.Dynset{SrcRegKey: register(0), SetName: set, Operation: op, Timeout: timeout, Exprs: with}}
}

func (f ipFamily) countRefused() match {
	return note(f.refused, unix.NFT_DYNSET_OP_ADD, 0, &expr.Counter{})
}

// overLimit is NFT_CONNLIMIT_F_INV: it holds beyond the count.
const overLimit = 1

// over holds for each connection beyond the limit.
func (f ipFamily) over(limit uint32) match {
	n, each := shares(limit)
	share := (f.from.size + 3) / 4
	return slices.Concat(match{
		f.from.load(register(0)),
		&expr.Numgen{Register: register(share), Modulus: n, Type: unix.NFT_NG_INCREMENTAL},
		&expr.Immediate{Register: register(share + 1), Data: word(limit)},
	}, note(f.open, unix.NFT_DYNSET_OP_UPDATE, 0, &expr.Connlimit{Count: each, Flags: overLimit}))
}

// limitRules are the rules of all chains: of the limits, and of the host's loopback. With
// closed admission the table also has the rules about unknown ports, and with guests the
// rules about clients of DHCP.
func limitRules(mode Mode, closed, guests bool, limits []uint32) []rule {
	b := &builder{}
	if closed {
		b.hostRules(goTo("refuse"))
	}
	b.loopback()
	if guests {
		b.clients()
	}
	for _, hook := range []string{"forward", "input"} {
		b.add(hook, "of a connection that is open, or of none", accept, ctState.noBit(word(ctNew|ctRelated)...))
		b.add(hook, "of one that has an entry already", accept, ctStatus.anyBit(word(ctConfirmed)...))
		for _, f := range ipFamilies {
			b.add(hook, f.chain, goTo(f.chain), nfproto.is(f.number))
		}
	}
	for _, f := range ipFamilies {
		b.add(f.chain, "of an address that was refused one a moment ago", goTo("refuse"), in(f.full, f.from), f.countRefused())
		b.add(f.chain, "to the chain of its limit", nil,
			match{f.from.load(register(0)), &expr.Lookup{SourceRegister: register(0), DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: f.max}})
	}
	for _, limit := range limits {
		n, each := shares(limit)
		for _, f := range ipFamilies {
			b.add(maxChain(limit), fmt.Sprintf("more than %d times %d over %s", n, each, f.chain), goTo("refuse"),
				nfproto.is(f.number), f.over(limit), note(f.full, unix.NFT_DYNSET_OP_UPDATE, fullFor), f.countRefused())
		}
	}
	verdict := expr.Any(drop)
	if mode == Monitor {
		verdict = accept
	}
	b.add("refuse", mode.String(), verdict, match{&expr.Counter{}})
	return b.rules
}

func maxChain(limit uint32) string { return maxPrefix + strconv.FormatUint(uint64(limit), 10) }

// limitFamily is that of the table of limits: it sees IPv4 and IPv6, forwarded and
// to the host.
const limitFamily = nftables.TableFamilyINet

// limitPlan is what the second table shall have.
type limitPlan struct {
	tablePlan
	// owners gives the port of each address.
	owners map[netip.Addr]int
	// lowered says that there are too many limits for all to be exact.
	lowered bool
}

// limited tells whether a limit is in force for a port.
func (pp *portPlan) limited() bool { return pp.state == Admitted && pp.Connections > 0 }

// limits works out the limits of the ports that are admitted.
func (p *plan) limits() limitPlan {
	var asked []uint32
	for _, pp := range p.ports {
		if pp.limited() {
			asked = append(asked, pp.Connections)
		}
	}
	if len(asked) == 0 && !p.closed && len(p.bridges) == 0 {
		return limitPlan{}
	}
	slices.Sort(asked)
	asked = slices.Compact(asked)
	lowered := len(asked) > maxLimits
	if lowered {
		for i, n := range asked {
			asked[i] = powerBelow(n)
		}
		asked = slices.Compact(asked)
	}
	out := limitPlan{tablePlan{limitRules(p.mode, p.closed, len(p.guests) > 0, asked),
		map[string]elements{setMax4: {}, setMax6: {}, setGuests: {}, setHostBridges: p.hostBridges()}}, map[netip.Addr]int{}, lowered}
	for bridge := range p.guests {
		out.sets[setGuests][element{key: portKey(bridge)}] = ""
	}
	for _, index := range sortedKeys(p.ports) {
		out.grant(p.ports[index], nil)
	}
	return out
}

// grant adds the addresses of a port with its limit, and notes them in news. Two ports may share
// a virtual address, or a link-local one (one MAC on two bridges): it counts for the first port.
func (p *limitPlan) grant(pp *portPlan, news map[want]struct{}) {
	if !pp.limited() || p.sets == nil {
		return
	}
	limit := pp.Connections
	if p.lowered {
		limit = powerBelow(limit)
	}
	for _, a := range pp.addrs {
		if _, taken := p.owners[a]; taken {
			continue
		}
		w := want{set4or6(a, setMax4, setMax6), element{key: string(a.AsSlice())}}
		p.owners[a], p.sets[w.set][w.element] = pp.Index, maxChain(limit)
		if news != nil {
			news[w] = struct{}{}
		}
	}
}

// revoke removes the addresses that grant added for a port.
func (p *limitPlan) revoke(pp *portPlan, news map[want]struct{}) {
	for _, a := range pp.addrs {
		if p.owners[a] == pp.Index {
			w := want{set4or6(a, setMax4, setMax6), element{key: string(a.AsSlice())}}
			delete(p.owners, a)
			delete(p.sets[w.set], w.element)
			news[w] = struct{}{}
		}
	}
}

// powerBelow is the greatest power of two that is not above n.
func powerBelow(n uint32) uint32 { return 1 << (bits.Len32(n) - 1) }

// refused reads how many packets of each address were refused.
func (f *filter) refused() (map[netip.Addr]uint64, error) {
	out := map[netip.Addr]uint64{}
	for _, family := range ipFamilies {
		err := f.elements(family.refused, func(e dumped) {
			if a, ok := netip.AddrFromSlice([]byte(e.key)); ok {
				out[a] = e.packets
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// forgotten are the counters of addresses that no port has any more, by set.
func (d *Driver) forgotten() (map[string]elements, error) {
	stale := map[string]elements{}
	if !d.features.Limits || !d.kernel.limits.present {
		return stale, nil
	}
	counts, err := d.limiter.refused()
	owners := d.plan.connections.owners
	for a := range counts {
		if _, ok := owners[a]; ok {
			continue
		}
		set := set4or6(a, setRefused4, setRefused6)
		if stale[set] == nil {
			stale[set] = elements{}
		}
		stale[set][element{key: string(a.AsSlice())}] = ""
	}
	return stale, err
}
