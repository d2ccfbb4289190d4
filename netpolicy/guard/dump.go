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

// elements lists a set. It is done here and not with the library, which takes some
// four times as long; with 1,000 containers that is what reading all costs.
func (f *filter) elements(set string, each func(dumped)) error {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(f.name + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	})
	if err != nil {
		return err
	}
	answers, err := f.dump.ask(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(f.family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return fmt.Errorf("list set %s: %w", set, err)
	}
	for _, a := range answers {
		if err := parseElements(a.Data, each); err != nil {
			return fmt.Errorf("list set %s: %w", set, err)
		}
	}
	return nil
}

// holds asks for one element of a set.
func (f *filter) holds(set string, e element) (bool, error) {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, f.name)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	ae.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(unix.NFTA_SET_ELEM_KEY, func(ae *netlink.AttributeEncoder) error {
				ae.Bytes(unix.NFTA_DATA_VALUE, []byte(e.key))
				return nil
			})
			return nil
		})
		return nil
	})
	attrs, err := ae.Encode()
	if err != nil {
		return false, err
	}
	_, err = f.dump.ask(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request},
		Data:   append([]byte{byte(f.family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up in set %s: %w", set, err)
	}
	return true, nil
}

// countersOf finds the counters of ports: of few by their keys, since a list of all costs
// what all ports have.
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

// parseElements reads one message of a dump.
func parseElements(data []byte, each func(dumped)) error {
	if len(data) < 4 {
		return errShort
	}
	return attributes(data[4:], func(typ uint16, list []byte) error {
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

// counter reads the counter in the rules of a chain, 0 where there is none. It is asked for more
// than once a second, so it is read without the library, which takes all rules apart.
func (f *filter) counter(chain string) (packets uint64, err error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(f.name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain + "\x00")},
	})
	if err != nil {
		return 0, err
	}
	answers, err := f.dump.ask(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(f.family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	for _, a := range answers {
		if err == nil {
			packets, err = counterOf(a.Data, packets)
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read counter of chain %s: %w", chain, err)
	}
	return packets, nil
}

// counterOf adds the counters of a rule.
func counterOf(rule []byte, packets uint64) (uint64, error) {
	if len(rule) < 4 {
		return packets, errShort
	}
	err := attributes(rule[4:], func(typ uint16, list []byte) error {
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
			packets += e.packets
			return err
		})
	})
	return packets, err
}

// attributes walks through netlink attributes.
func attributes(b []byte, each func(typ uint16, value []byte) error) error {
	return netlinkattr.Walk(b, func(typ uint16, _, value []byte) error { return each(typ, value) })
}
