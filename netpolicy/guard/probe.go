package guard

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/apart"
	"netguard/internal/fault"
)

// Features are what this kernel has for the guard.
type Features struct {
	Locked   bool // a port takes frames only from MACs that are bound to it
	Sticky   bool // an FDB entry stays on its port
	Groups   bool // the number of multicast groups that a port joins can be limited
	Filter   bool // nftables of the bridge family, with the guard's rules
	Prefixes bool // sets of prefixes, for the label netguard.guard.allow
	Samples  bool // refused frames can be handed to a listener
	// BridgeNames: rules see which bridge a port is on. Without it, they recognise unknown
	// ports by other means; see unknown_port_rules.go.
	BridgeNames bool
	Limits      bool // connections can be counted by container
	ARP         bool // nftables of the ARP family
	// Checksum: a program can mark frames that the kernel still writes into after the rules
	// judged them.
	Checksum bool
	// NoChecksum says why Checksum is false.
	NoChecksum string
	// Missing says what the kernel lacks, and what that means.
	Missing []string
}

// able leaves out of settings what the kernel cannot do.
func (f Features) able(s settings) settings {
	if !f.Locked {
		s.on &^= locked
	}
	if !f.Groups {
		s.groups = 0
	}
	return s
}

// Probe finds out what the kernel has by trying it. It makes a bridge, a veth and tables in new
// network namespaces. If it may not make a namespace, it makes them in this one. It removes all
// of them before it returns.
func Probe() (Features, error) { return probe(apart.Run) }

// probe runs its parts at the same time, each in a namespace that the function in makes. If in
// cannot make one, the part runs in this namespace.
func probe(in func(func() error) error) (Features, error) {
	var f, filter, tables Features
	parts := []func() error{f.probeLinks,
		func() error { filter.probeFilter(); return nil },
		func() error { tables.probeTables(); return nil }}
	faults := make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() { faults[i] = in(part) })
	}
	all.Wait()
	for i, part := range parts { // one by one: they use the same names
		if errors.Is(faults[i], apart.ErrNoNamespace) {
			faults[i] = part()
		}
	}
	if err := errors.Join(faults...); err != nil {
		return f, fmt.Errorf("probe: %w", err)
	}
	f.Filter, f.Prefixes, f.Samples, f.BridgeNames = filter.Filter, filter.Prefixes, filter.Samples, filter.BridgeNames
	f.Missing = append(f.Missing, filter.Missing...)
	if f.Filter {
		f.Limits, f.ARP = tables.Limits, tables.ARP
		f.Missing = append(f.Missing, tables.Missing...)
	}
	return f, nil
}

const probeName = "ngprobe"

// probeLinks tries what a port can be set to.
func (f *Features) probeLinks() (err error) {
	links, err := openRtnl()
	if err != nil {
		return err
	}
	defer links.close()
	port, remove, err := scratch()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: netguard needs CAP_NET_ADMIN, run it as root", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if err := f.probePort(links, port); err != nil {
		return err
	}
	if unseen := f.probeChecksum(port); unseen != nil {
		f.NoChecksum = unseen.Error()
	}
	return nil
}

// scratch makes a bridge with one port.
func scratch() (port int, remove func() error, err error) {
	h, err := vish.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	attrs := func(suffix string) vish.LinkAttrs {
		a := vish.NewLinkAttrs()
		a.Name = probeName + suffix
		return a
	}
	bridge := &vish.Bridge{LinkAttrs: attrs("0")}
	if err := fault.Write("probe link", func() error { return h.LinkAdd(bridge) }); err != nil {
		return 0, nil, fmt.Errorf("make bridge %s: %w (is the kernel module bridge there?)", bridge.Name, err)
	}
	veth := &vish.Veth{LinkAttrs: attrs("1"), PeerName: probeName + "2"}
	veth.MasterIndex = bridge.Index
	if err := fault.Write("probe link", func() error { return h.LinkAdd(veth) }); err != nil {
		return 0, nil, errors.Join(fmt.Errorf("make veth %s: %w", veth.Name, err), h.LinkDel(bridge))
	}
	return veth.Index, func() error {
		defer h.Close()
		return errors.Join(h.LinkDel(veth), h.LinkDel(bridge))
	}, nil
}

// probePort tries the settings and the entries of a port.
func (f *Features) probePort(links rtnl, port int) error {
	want := guarded(portDefaults)
	if err := links.set(port, want, true); err != nil {
		return err
	}
	p, _, err := links.port(port)
	if err != nil {
		return err
	}
	if f.Locked = p.settings.on&locked != 0; !f.Locked {
		f.Missing = append(f.Missing, "bridge port setting locked (Linux 5.16): the filter alone keeps containers to their MACs")
	}
	f.Groups = p.settings.groups == want.groups
	if want = f.able(want); p.settings != want {
		return fmt.Errorf("port was set to %q and is %q: Linux 4.15 or newer is needed", want, p.settings)
	}
	mac := MAC{2, 'g', 'u', 'a', 'r', 'd'}
	if err := links.pin(port, mac); err != nil {
		return err
	}
	e, ok, err := links.fdb(port, mac)
	switch {
	case err != nil || !ok || !e.static(port):
		return errors.Join(err, fmt.Errorf("FDB entry cannot be read back (%+v): Linux 5.0 or newer is needed", e))
	case !e.pinned(port, true):
		f.Missing = append(f.Missing, "sticky FDB entries (Linux 4.20): without locked, an entry follows who uses its MAC")
	default:
		f.Sticky = true
	}
	return links.unpin(port, mac)
}

// probeTable tries a table beside that of the bridge.
func probeTable(family nftables.TableFamily, sets []setSpec, p tablePlan) error {
	filter, err := openFilter(family, probeName)
	if err != nil {
		return err
	}
	defer filter.close()
	if err := filter.commit(p.diff(family, sets, &tableState{}), sets); err != nil {
		return err
	}
	return filter.remove()
}

// probeTables tries the table of limits, with one limit, and the table of ARP.
func (f *Features) probeTables() {
	p := &plan{ports: map[int]*portPlan{1: {Port: Port{Connections: DefaultConnections}, state: Admitted}}}
	err := probeTable(limitFamily, limitSets(), p.limits().tablePlan)
	if f.Limits = err == nil; err != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("nftables limit of connections (CONFIG_NF_TABLES_INET, CONFIG_NFT_CONNLIMIT, CONFIG_NFT_NUMGEN, CONFIG_NFT_CT; %v): one container can fill the host's table of connections", err))
	}
	p = &plan{closed: true, bridges: []int{1}}
	err = probeTable(arpFamily, arpSets(), p.arp())
	if f.ARP = err == nil; err != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("nftables of the ARP family (CONFIG_NF_TABLES_ARP; %v): the host hears some ARP of containers that start while no agent runs", err))
	}
}

// probeFilter loads the rule set, all of it, without a port.
func (f *Features) probeFilter() {
	filter, err := openFilter(bridgeFamily, probeName)
	if err != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("nftables (%v): nothing filters what containers send", err))
		return
	}
	defer filter.close()
	try := func(with Features) error {
		l, err := newLayout(Options{Storm: DefaultStorm}, with)
		if err != nil {
			return err
		}
		err = filter.commit(diffTable(&l, nil, &tableState{}), l.sets)
		if err == nil {
			err = filter.remove()
		}
		return err
	}
	defer func() {
		with := *f
		with.BridgeNames = true
		f.BridgeNames = f.Filter && try(with) == nil
	}()
	err = try(Features{Prefixes: true, Samples: true})
	if err == nil {
		f.Filter, f.Prefixes, f.Samples = true, true, true
		return
	}
	none := try(Features{})
	if none != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("nftables of the bridge family (CONFIG_NF_TABLES_BRIDGE, Linux 5.3; %v): nothing filters ARP, ND and IP that containers forge", none))
		return
	}
	f.Filter = true
	if err := try(Features{Prefixes: true}); err != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("nftables sets of prefixes (Linux 5.6; %v): the label %s takes single addresses only", err, LabelAllow))
	} else {
		f.Prefixes = true
	}
	if err := try(Features{Samples: true}); err != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("nftables log to user space (CONFIG_NETFILTER_NETLINK_LOG; %v): refused frames are counted, and nobody is told which addresses they forged", err))
	} else {
		f.Samples = true
	}
}
