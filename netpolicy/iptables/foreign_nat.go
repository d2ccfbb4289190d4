package iptables

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"netguard/netpolicy"
)

// Others are foreign rules that decide about a packet before netguard's rules do: where it goes
// (the table nat), and whether the kernel knows its connection (raw).
type Others struct {
	nat, raw [2]map[string][]string
	native   []string // rules with notrack of nftables itself
	// prints are the fingerprints of all tables that it was read from.
	prints map[printKey]fingerprint
}

type printKey struct {
	family int
	table  string // of the legacy backend; "" for nftables
}

// fingerprints gives the fingerprints of the tables that ReadOthers reads, nil if one cannot be
// taken.
func (d *Driver) fingerprints() map[printKey]fingerprint {
	all := map[printKey]fingerprint{}
	s, err := d.rules.generation()
	all[printKey{}] = s
	for _, i := range d.families {
		for _, name := range legacyTables(i) {
			if err == nil && (name == "nat" || name == "raw") {
				all[printKey{i, name}], err = legacyFingerprint(i, name)
			}
		}
	}
	if err != nil {
		return nil
	}
	return all
}

// ReadOthers reads the foreign rules. If no table changed since the last time, it gives what it
// read then. It changes nothing.
func (d *Driver) ReadOthers(ctx context.Context) (*Others, error) {
	o := &Others{prints: d.fingerprints()}
	if was := d.others; was != nil && o.prints != nil && maps.Equal(was.prints, o.prints) {
		return was, nil
	}
	var lists []func() error // that are under way
	for _, i := range d.families {
		o.nat[i], o.raw[i] = map[string][]string{}, map[string][]string{}
		for _, b := range d.backends {
			for name, into := range map[string]map[string][]string{"nat": o.nat[i], "raw": o.raw[i]} {
				if b.kind == Legacy && !slices.Contains(legacyTables(i), name) {
					continue
				}
				list := b.beginList(ctx, i, name)
				lists = append(lists, func() error {
					t, err := list()
					if err != nil {
						return err
					}
					for chain, rules := range t.rules {
						into[chain] = append(into[chain], rules...)
					}
					return nil
				})
			}
		}
	}
	var faults []error
	for _, end := range lists {
		faults = append(faults, end())
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	var err error
	if o.native, err = NativeNotrack(); err == nil {
		d.others = o
	}
	return o, err
}

// Led tells where the table nat leads the first packet of a connection. It is false if the
// packet stays as it is. in is the device that the packet comes from, "" for the host itself
// and "-" for a device that is not Docker's. Led skips rules with unknown matches.
func (o *Others) Led(in string, src, dst netip.Addr, s netpolicy.Service, local func(netip.Addr) bool) (netip.AddrPort, bool) {
	chain := "PREROUTING"
	if in == "" {
		chain = "OUTPUT"
	}
	l := led{rules: o.nat[index(dst.Is6())], in: in, src: src, dst: dst, service: s, local: local}
	to, _ := l.walk(chain, 0)
	return to, to.IsValid()
}

type led struct {
	rules    map[string][]string
	in       string
	src, dst netip.Addr
	service  netpolicy.Service
	local    func(netip.Addr) bool
}

// walk goes through a chain. over says that the table is done with the packet.
func (l *led) walk(chain string, depth int) (to netip.AddrPort, over bool) {
	if depth > 16 {
		return to, true
	}
	for _, rule := range l.rules[chain] {
		target, argument, ok := l.matches(strings.Fields(rule))
		switch {
		case !ok:
		case target == "RETURN":
			return to, false
		case target == "DNAT":
			return destination(argument, l.service.Port), true
		case l.rules[target] != nil || target == "DOCKER":
			if to, over = l.walk(target, depth+1); over {
				return to, true
			}
		case target == "ACCEPT" || target == "REDIRECT":
			return to, true
		}
	}
	return to, false
}

// destination reads an argument of --to-destination: an address or a range of them, with or without
// a port or a range of those. The first of a range stands for all. A packet keeps its port if the
// argument has none, or a range with that port.
func destination(argument string, port uint16) netip.AddrPort {
	host, ports := argument, ""
	if inner, after, is := strings.Cut(strings.TrimPrefix(argument, "["), "]"); is {
		host, ports = inner, strings.TrimPrefix(after, ":")
	} else if strings.Count(argument, ":") == 1 {
		host, ports, _ = strings.Cut(argument, ":")
	}
	host, _, _ = strings.Cut(host, "-")
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}
	}
	if ports != "" {
		first, last, _ := strings.Cut(ports, "-")
		low, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return netip.AddrPort{}
		}
		high, err := strconv.ParseUint(last, 10, 16)
		if err != nil || uint64(port) < low || uint64(port) > high {
			port = uint16(low)
		}
	}
	return netip.AddrPortFrom(a, port)
}

func (l *led) matches(words []string) (target, argument string, ok bool) {
	for k := 0; k < len(words); k++ {
		not := words[k] == "!"
		if not {
			k++
		}
		if k+1 >= len(words) {
			return "", "", false
		}
		is := true
		value := words[k+1]
		switch words[k] {
		case "-m":
		case "-i":
			is = value == l.in
		case "-s", "-d":
			a := l.dst
			if words[k] == "-s" {
				a = l.src
			}
			p, err := netip.ParsePrefix(value)
			if err != nil {
				return "", "", false
			}
			is = p.Contains(a)
		case "-p":
			is = value == l.service.Proto.String()
		case "--dport":
			is = inPorts(value, l.service.Port)
		case "--dst-type":
			if value != "LOCAL" {
				return "", "", false
			}
			is = l.local(l.dst)
		case "-j":
			target = value
		case "--to-destination":
			argument = value
		default:
			return "", "", false
		}
		if is == not {
			return "", "", false
		}
		k++
	}
	return target, argument, true
}
