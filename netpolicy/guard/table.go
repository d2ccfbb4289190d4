package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// TableName is the name of the guard's table in the bridge family.
const TableName = "netguard"

// bridgeFamily is NFPROTO_BRIDGE.
const bridgeFamily = nftables.TableFamilyBridge

// The sets of the table. Most keys begin with the port's ifindex. A name would be wrong: another
// device may get the name, but not the ifindex.
const (
	setV4            = "v4"            // port . MAC . address: what the port may send from
	setV6            = "v6"            //
	setMAC           = "mac"           // port . MAC
	setPorts         = "ports"         // guarded ports, with what they were set to before
	setQuarantined   = "quarantined"   // guarded ports that are not admitted
	setKnown         = "known"         // ports that may talk to each other
	setOwn4          = "own4"          // addresses that no prefix gives to another port
	setOwn6          = "own6"          //
	setNet4          = "net4"          // port . prefix that its label allows
	setNet6          = "net6"          //
	setBridges       = "bridges"       // MACs of the managed bridges
	setNames         = "names"         // their names
	setSubnets4      = "subnets4"      // protocol . prefix: theirs
	setSubnets6      = "subnets6"      //
	setOthers        = "others"        // ports of other bridges
	setUnknown       = "unknown"       // unknown ports that were seen on a managed bridge
	setIsolated      = "isolated"      // ports that policies close for what reaches them
	setInto4         = "into4"         // port . address: of isolated ports that are not guarded
	setInto6         = "into6"         //
	setAll4          = "all4"          // broadcast addresses of the managed networks
	setViolations    = "violations"    // port . kind, with a counter
	setStorm         = "storm"         // port, with a rate meter
	setStormBytes    = "storm-bytes"   // the same of bytes
	setSamples       = "samples"       // port . kind, with a rate meter
	setAsks          = "pace-asks"     // port . MAC of a neighbour, with a rate meter of questions of ARP and ND
	setAnswers       = "pace-answers"  // the same of answers
	setAsksAll       = "pace-asks-all" // port, with a rate meter of those to all neighbours
	setAnswersAll    = "pace-answers-all"
	setReports       = "pace-reports"   // port, with a rate meter of reports of groups
	setClients       = "pace-clients"   // port, with a rate meter of a DHCP client's questions
	setLengths       = "lengths"        // protocol . length that the packet says . length that it has
	setReassembly    = "reassembly"     // numbers of the host's settings, with what they were before
	setFragments     = "fragments"      // port, with a rate meter of fragments
	setFragmentBytes = "fragment-bytes" // the same of their bytes
	setServers       = "dhcp-servers"   // ports that may answer DHCP clients of their bridge
	setRouted        = "dhcp-routed"    // ports whose answers to clients beyond the host may leave
	setPrograms      = "programs"       // number . fingerprint of programs that are, or were, attached to ports
)

const (
	// maxPorts is how many ports the table takes. A bridge has 1023 at most.
	maxPorts = 16384
	// maxBridges is how many bridges.
	maxBridges = 4096
	// All labels together may add maxExtras pairs of MAC and address, and maxPrefixes
	// prefixes: the kernel copies all of these at each change.
	maxExtras   = 16384
	maxPrefixes = 4096
	// meterLife is how long a port's rate meter stays after its last frame.
	meterLife = time.Minute
)

// setSpec describes a set.
type setSpec struct {
	name     string
	key      []nftables.SetDatatype
	leads    bool   // to chains: a map
	size     uint32 // for small keys the kernel has a faster set of fixed size
	interval bool
	dynamic  bool // filled by the rules
	counter  bool
	timeout  bool
}

// sets lists the sets of the table. Concatenated prefixes need Linux 5.6.
func sets(f Features) []setSpec {
	port, mac := nftables.TypeIFIndex, nftables.TypeEtherAddr
	v4, v6 := nftables.TypeIPAddr, nftables.TypeIP6Addr
	key := func(t ...nftables.SetDatatype) []nftables.SetDatatype { return t }
	out := []setSpec{
		{name: setV4, key: key(port, mac, v4), size: 4 * maxPorts},
		{name: setV6, key: key(port, mac, v6), size: 4 * maxPorts},
		{name: setMAC, key: key(port, mac), size: 2 * maxPorts},
		{name: setPorts, key: key(port), size: maxPorts},
		{name: setQuarantined, key: key(port), size: maxPorts},
		{name: setKnown, key: key(port), size: maxPorts},
		{name: setIsolated, key: key(port), size: maxPorts},
		{name: setInto4, key: key(port, v4), size: 4 * maxPorts},
		{name: setInto6, key: key(port, v6), size: 4 * maxPorts},
		{name: setAll4, key: key(v4), size: 2 * maxBridges},
		{name: setServers, key: key(port), size: maxPorts},
		{name: setRouted, key: key(port), size: maxPorts},
		{name: setOwn4, key: key(v4), size: 2 * maxPorts},
		{name: setOwn6, key: key(v6), size: 4 * maxPorts},
		{name: setViolations, key: key(port, nftables.TypeMark), size: maxPorts * uint32(kinds), dynamic: true, counter: true},
		{name: setPrograms, key: key(nftables.TypeMark, nftables.TypeMark), size: 4096},
		{name: setStorm, key: key(port), size: maxPorts, dynamic: true, timeout: true},
		{name: setStormBytes, key: key(port), size: maxPorts, dynamic: true, timeout: true},
	}
	out = append(out, controlSets()...)
	out = append(out, fragmentSets()...)
	out = append(out, managedSets(f)...)
	if f.Samples {
		out = append(out, setSpec{name: setSamples, key: key(port, nftables.TypeMark), size: maxPorts * uint32(kinds), dynamic: true, timeout: true})
	}
	if f.Prefixes {
		out = append(out,
			setSpec{name: setNet4, key: key(port, v4), interval: true},
			setSpec{name: setNet6, key: key(port, v6), interval: true})
	}
	return out
}

// build makes the set of the library's type.
func (s setSpec) build(t *nftables.Table) *nftables.Set {
	set := &nftables.Set{Table: t, Name: s.name, KeyType: s.key[0], Size: s.size,
		Interval: s.interval, Dynamic: s.dynamic, Counter: s.counter, HasTimeout: s.timeout}
	if len(s.key) == 1 && s.key[0] == nftables.TypeIFIndex {
		// Only so that nft(8) prints it as a device.
		set.KeyByteOrder = binaryutil.NativeEndian
	}
	if s.leads {
		set.IsMap, set.DataType = true, nftables.TypeVerdict
	}
	if len(s.key) > 1 {
		set.KeyType = nftables.MustConcatSetType(s.key...)
		// Only sets with intervals need the length of each field.
		set.Concatenation = s.interval
	}
	return set
}

// setIDs numbers new sets. The library's own number is not safe for two drivers that make
// sets at one time.
var setIDs atomic.Uint32

// addSet makes a set, in the transaction that is being gathered.
func (f *filter) addSet(s setSpec) (*nftables.Set, error) {
	set := s.build(f.table())
	set.ID = setIDs.Add(1)
	if err := f.nft.AddSet(set, nil); err != nil {
		return nil, fmt.Errorf("add set %s: %w", s.name, err)
	}
	return set, nil
}

// rule is one rule. nft(8) shows its comment.
type rule struct {
	chain   string
	comment string
	exprs   []expr.Any
}

// baseChains are the chains that the kernel calls, by table, with their hooks and priorities.
var baseChains = map[nftables.TableFamily]map[string]baseChain{
	bridgeFamily: {
		"prerouting": {nftables.ChainHookPrerouting, hookPriority},
		"input":      {nftables.ChainHookInput, hookPriority},
		"output":     {nftables.ChainHookOutput, hookPriority},
		"forward":    {nftables.ChainHookForward, hookPriority},
	},
	limitFamily: {
		"forward":    {nftables.ChainHookForward, limitPriority},
		"input":      {nftables.ChainHookInput, limitPriority},
		unknownChain: {nftables.ChainHookPrerouting, unknownPriority},
	},
	arpFamily: {unknownChain: {nftables.ChainHookRef(0), unknownPriority}}, // NF_ARP_IN
}

type baseChain struct {
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
}

// hookPriority puts the guard before everybody else, br_netfilter with iptables
// (0) and ebtables' nat (-300) among them.
const hookPriority = -400

// layout is a table without the elements of its sets. The layout of the bridge's table depends
// on the options and on what the kernel has, never on the ports.
type layout struct {
	sets   []setSpec
	rules  []rule
	chains []string
	// lines are what is compared with the kernel, by chain.
	lines map[string]string
	// id names the bridge's rule set by two hashes: one of its sets, then one of its rules.
	// setsID is the part up to the first hash. If it differs, the table is made anew.
	id, setsID string
	metered    bool    // its meters keep the rates of the rules that made them
	options    Options // that it is made of
}

// assemble makes the layout of a table.
func assemble(family nftables.TableFamily, sets []setSpec, rules []rule) layout {
	l := layout{sets: sets, rules: rules}
	t := &nftables.Table{Family: family}
	l.lines = chainContents(rules, func(chain string) []string { return headOf(buildChain(t, chain)) })
	for _, r := range rules {
		if !slices.Contains(l.chains, r.chain) {
			l.chains = append(l.chains, r.chain)
		}
	}
	return l
}

// newLayout makes the layout of the bridge's table. Two chains are empty: their names tell the
// id and the format.
func newLayout(o Options, f Features) (layout, error) {
	l := assemble(bridgeFamily, sets(f), rules(o, f))
	l.options, l.metered = o, true
	h := sha256.New()
	fmt.Fprintf(h, "format %d\n", Format)
	for _, s := range l.sets {
		fmt.Fprintf(h, "%+v\n", s)
	}
	l.setsID = layoutPrefix + hex.EncodeToString(h.Sum(nil)[:8]) + "-"
	for _, r := range l.rules {
		fmt.Fprintf(h, "%s %s\n", r.chain, r.comment)
		for _, e := range r.exprs {
			b, err := expr.Marshal(byte(bridgeFamily), e)
			if err != nil {
				return l, fmt.Errorf("assemble rule %q of chain %s: %w", r.comment, r.chain, err)
			}
			h.Write(b)
		}
	}
	l.id = l.setsID + hex.EncodeToString(h.Sum(nil)[:8])
	for _, name := range []string{l.id, formatPrefix + strconv.Itoa(Format)} {
		l.chains, l.lines[name] = slices.Insert(l.chains, 0, name), ""
	}
	return l, nil
}

// layoutPrefix begins the name of an empty chain that is there for its name alone.
const layoutPrefix = "layout-"

// buildChain makes a chain of a table, with a hook and a priority if the kernel calls it.
func buildChain(t *nftables.Table, name string) *nftables.Chain {
	c := &nftables.Chain{Table: t, Name: name}
	if base, ok := baseChains[t.Family][name]; ok {
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, base.hook, &base.priority
		c.Policy = new(nftables.ChainPolicyAccept)
	}
	return c
}
