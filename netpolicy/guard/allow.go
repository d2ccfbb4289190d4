package guard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"netguard/internal/label"
)

// LabelAllow is the label that ParseAllow reads.
const LabelAllow = label.Allow

// MaxAllow bounds the entries of a label: each MAC is combined with each address.
const MaxAllow = 32

// Allow are addresses of a container beyond those that Docker gave it.
type Allow struct {
	Prefixes []netip.Prefix // a single address is a /32 or a /128
	MACs     []MAC
}

// ParseAllow reads the label netguard.guard.allow: addresses, prefixes and MACs
// with commas between them, such as "192.0.2.10,02:00:00:00:00:01". All that is
// wrong with it is in the error.
func ParseAllow(label string) (Allow, error) {
	var a Allow
	var errs []error
	fields := strings.Split(label, ",")
	if len(fields) > MaxAllow {
		return a, fmt.Errorf("label %s: %d entries, at most %d: name a prefix instead of its addresses", LabelAllow, len(fields), MaxAllow)
	}
	for _, f := range fields {
		f = strings.TrimSpace(f)
		if f == "" {
			continue
		}
		if err := a.add(f); err != nil {
			errs = append(errs, fmt.Errorf("label %s: %w", LabelAllow, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Allow{}, err
	}
	return a, nil
}

func (a *Allow) add(f string) error {
	if hw, err := net.ParseMAC(f); err == nil {
		m, err := MACOf(hw)
		if err == nil {
			a.MACs = append(a.MACs, m)
		}
		return err
	}
	p, err := netip.ParsePrefix(f)
	if err != nil {
		addr, err := netip.ParseAddr(f)
		if err != nil || addr.Zone() != "" {
			return fmt.Errorf("%.60q is no address (192.0.2.10), prefix (192.0.2.0/28) or MAC (02:00:00:00:00:01)", f)
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return fmt.Errorf("%.60q is IPv4 written as IPv6: write %s", f, p.Addr().Unmap())
	case p != p.Masked():
		return fmt.Errorf("%.60q has bits beyond its length: write %s", f, p.Masked())
	case p.Addr().IsMulticast():
		return fmt.Errorf("%.60q is multicast: no frame comes from there", f)
	case p.IsSingleIP() && p.Addr().IsUnspecified():
		return fmt.Errorf("%.60q is no address", f)
	}
	a.Prefixes = append(a.Prefixes, p)
	return nil
}
