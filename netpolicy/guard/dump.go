package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/netlinkattr"
)

// dumped is one element of a set as the kernel has it.
type dumped struct {
	element
	comment string
	leads   string // of a map: the chain
	packets uint64 // of its counter
}

// errShort says that an attribute is longer than what it is in.
var errShort = errors.New("attribute is cut off")

// elements lists a set. It does not use the library, which takes about four times as long. With
// 1,000 containers, most of the cost of reading everything is in these lists.
func (f *filter) elements(set string, each func(dumped)) error {
	err := f.ask(unix.NFT_MSG_GETSETELEM, netlink.Dump, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, f.name)
		ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	}, func(data []byte) error { return parseElements(data, each) })
	if err != nil {
		return fmt.Errorf("list set %s: %w", set, err)
	}
	return nil
}

// ask asks nftables a question, and reads each answer, which begins with an attribute.
func (f *filter) ask(question uint16, flags netlink.HeaderFlags, attrs func(*netlink.AttributeEncoder), read func(data []byte) error) error {
	ae := netlink.NewAttributeEncoder()
	attrs(ae)
	body, err := ae.Encode()
	if err != nil {
		return err
	}
	answers, _, err := f.dump.ask(unix.NFNL_SUBSYS_NFTABLES<<8|question, flags, append([]byte{byte(f.family), unix.NFNETLINK_V0, 0, 0}, body...))
	for _, a := range answers {
		switch {
		case err != nil:
		case len(a) < 4:
			err = errShort
		default:
			err = read(a[4:])
		}
	}
	return err
}

// holds asks for one element of a set.
func (f *filter) holds(set string, e element) (bool, error) {
	err := f.ask(unix.NFT_MSG_GETSETELEM, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, f.name)
		ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
		nest(ae, func(ae *netlink.AttributeEncoder) { ae.Bytes(unix.NFTA_DATA_VALUE, []byte(e.key)) },
			unix.NFTA_SET_ELEM_LIST_ELEMENTS, unix.NFTA_LIST_ELEM, unix.NFTA_SET_ELEM_KEY)
	}, func([]byte) error { return nil })
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up in set %s: %w", set, err)
	}
	return true, nil
}

// countersOf finds the counters of some ports. If the ports are few, it asks for each counter by
// its key: the cost of a list grows with all ports of the host.
func (f *filter) countersOf(ports map[int]bool) ([]counted, error) {
	var out []counted
	if len(ports) > few {
		all, err := f.violations()
		for key := range all {
			if ports[key.port] {
				out = append(out, key)
			}
		}
		return out, err
	}
	for port := range ports {
		for k := kindMAC; k <= kinds; k++ {
			switch there, err := f.holds(setViolations, counted{port, k}.element()); {
			case err != nil:
				return nil, err
			case there:
				out = append(out, counted{port, k})
			}
		}
	}
	return out, nil
}

// few ports are looked up one by one.
const few = 8

// nest wraps attributes in one attribute of each type. The first type is the outermost.
func nest(ae *netlink.AttributeEncoder, attrs func(*netlink.AttributeEncoder), types ...uint16) {
	if len(types) == 0 {
		attrs(ae)
		return
	}
	ae.Nested(types[0], func(ae *netlink.AttributeEncoder) error { nest(ae, attrs, types[1:]...); return nil })
}

// parseElements reads one message of a dump.
func parseElements(data []byte, each func(dumped)) error {
	return attributes(data, func(typ uint16, list []byte) error {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return attributes(list, func(_ uint16, b []byte) error {
			var e dumped
			if err := attributes(b, e.parse); err != nil {
				return err
			}
			each(e)
			return nil
		})
	})
}

// elementKeyEnd is NFTA_SET_ELEM_KEY_END.
const elementKeyEnd = 10

func (e *dumped) parse(typ uint16, b []byte) error {
	value := func(into *string) func(uint16, []byte) error {
		return func(typ uint16, b []byte) error {
			if typ == unix.NFTA_DATA_VALUE {
				*into = string(b)
			}
			return nil
		}
	}
	switch typ {
	case unix.NFTA_SET_ELEM_KEY:
		return attributes(b, value(&e.key))
	case elementKeyEnd:
		return attributes(b, value(&e.end))
	case unix.NFTA_SET_ELEM_DATA:
		return attributes(b, func(typ uint16, b []byte) error {
			if typ != unix.NFTA_DATA_VERDICT {
				return nil
			}
			return attributes(b, func(typ uint16, b []byte) error {
				if typ == unix.NFTA_VERDICT_CHAIN {
					e.leads = strings.TrimRight(string(b), "\x00")
				}
				return nil
			})
		})
	case unix.NFTA_SET_ELEM_USERDATA:
		// The first part is the comment, as netguard writes it.
		if len(b) > 2 && userdata.Type(b[0]) == userdata.NFTNL_UDATA_SET_ELEM_COMMENT && int(b[1]) == len(b)-2 {
			e.comment = string(b[2 : len(b)-1])
		}
	case unix.NFTA_SET_ELEM_EXPR:
		return attributes(b, e.expression)
	}
	return nil
}

// expression reads a part of a counter.
func (e *dumped) expression(typ uint16, b []byte) error {
	if typ != unix.NFTA_EXPR_DATA {
		return nil
	}
	return attributes(b, func(typ uint16, b []byte) error {
		if typ == unix.NFTA_COUNTER_PACKETS && len(b) == 8 {
			e.packets = binary.BigEndian.Uint64(b)
		}
		return nil
	})
}

// counter reads the counter in the rules of a chain; it gives 0 if there is none. It runs more
// than once a second. So it does not use the library, which decodes all rules.
func (f *filter) counter(chain string) (packets uint64, err error) {
	err = f.ask(unix.NFT_MSG_GETRULE, netlink.Dump, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, f.name)
		ae.String(unix.NFTA_RULE_CHAIN, chain)
	}, func(data []byte) error { return addCounters(data, &packets) })
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read counter of chain %s: %w", chain, err)
	}
	return packets, nil
}

// addCounters adds the counters of a rule.
func addCounters(rule []byte, packets *uint64) error {
	return attributes(rule, func(typ uint16, list []byte) error {
		if typ != unix.NFTA_RULE_EXPRESSIONS {
			return nil
		}
		return attributes(list, func(_ uint16, b []byte) error {
			var e dumped
			counts := false
			err := attributes(b, func(typ uint16, v []byte) error {
				counts = counts || typ == unix.NFTA_EXPR_NAME && cut(v) == "counter"
				if counts {
					return e.expression(typ, v)
				}
				return nil
			})
			*packets += e.packets
			return err
		})
	})
}

// uintOf reads a number of 1, 2 or 4 bytes in this machine's order. For any other length it
// gives 0.
func uintOf(b []byte) uint32 {
	switch len(b) {
	case 1:
		return uint32(b[0])
	case 2:
		return uint32(binary.NativeEndian.Uint16(b))
	case 4:
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

// attributes walks through netlink attributes.
func attributes(b []byte, each func(typ uint16, value []byte) error) error {
	return netlinkattr.Walk(b, func(typ uint16, _, value []byte) error { return each(typ, value) })
}
