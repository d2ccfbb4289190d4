package iptables

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

// iptables' nf_tables backend makes the filter table, and the kernel's own chains in it, when a
// rule first needs them. It never removes them. Empty chains of netguard's record what was not
// there before. Each record stays as long as netguard has to remove what it is about.
const (
	// madeMark says that the table was not there.
	madeMark = "NG-MADE"
	// madePrefix, before the name of a chain of the kernel's, says that the chain was not
	// there.
	madePrefix = "NG-MADE-"
)

// baseChains are the kernel's own chains.
var baseChains = []string{"INPUT", "FORWARD", "OUTPUT"}

var marks = []string{madeMark, madePrefix + "INPUT", madePrefix + "FORWARD", madePrefix + "OUTPUT"}

// toMark gives marks for the parts of a table that do not exist, and that iptables makes when
// netguard writes rules.
func (b *backend) toMark(i int, t *table) ([]chain, error) {
	if b.kind != NFT {
		return nil, nil // the legacy table is always whole, and stays until its module goes
	}
	there, exists, err := chainsOf(i)
	if err != nil {
		return nil, err
	}
	var out []chain
	if !exists {
		out = append(out, chain{name: madeMark})
	}
	for _, c := range baseChains {
		if !there[c] && !t.has(madePrefix+c) {
			out = append(out, chain{name: madePrefix + c})
		}
	}
	return out, nil
}

// chainsOf asks the kernel for the chains of a family's filter table, and whether the table
// exists. iptables does not tell: it lists the table and the kernel's own chains in any case.
func chainsOf(i int) (there map[string]bool, exists bool, err error) {
	family := [2]nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}[i]
	c, err := nftables.New()
	if err != nil {
		return nil, false, fmt.Errorf("open netlink: %w", err)
	}
	tables, err := c.ListTablesOfFamily(family)
	if err == nil {
		exists = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == filter })
	}
	list, failed := c.ListChainsOfTableFamily(family)
	if err = errors.Join(err, failed); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, false, fmt.Errorf("list %s chains: %w", familyNames[i], err)
	}
	there = map[string]bool{}
	for _, c := range list {
		if c.Table.Name == filter {
			there[c.Name] = true
		}
	}
	return there, exists, nil
}

// unmake removes what was not there before netguard, as the marks of a table say, unless
// another program uses it now. Each thing goes together with its mark. Then the other marks
// go. The table must not have rules of netguard's any more.
func unmake(i int, t *table) error {
	there, _, err := chainsOf(i)
	if err != nil {
		return err
	}
	foreign := func(c string) bool { return !slices.Contains(baseChains, c) && !slices.Contains(marks, c) }
	if t.has(madeMark) && t.empty() && !slices.ContainsFunc(slices.Collect(maps.Keys(there)), foreign) {
		err := fault.Write("nft delete table", func() error { return remove(i, slices.Sorted(maps.Keys(there)), true) })
		if err == nil {
			return nil
		}
		if err := gone(i, err); err != nil {
			return err
		}
	}
	for _, c := range baseChains {
		mark := madePrefix + c
		if !there[mark] || !there[c] || len(t.rules[c]) > 0 || t.policy[c] != "ACCEPT" {
			continue
		}
		err := fault.Write("nft delete chain", func() error { return remove(i, []string{c, mark}, false) })
		if there[mark] = err != nil; gone(i, err) != nil {
			return gone(i, err)
		}
	}
	for _, mark := range marks {
		if there[mark] {
			err := fault.Write("nft delete chain", func() error { return remove(i, []string{mark}, false) })
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("delete chain %s from %s table (does a rule of somebody else's lead there?): %w", mark, familyNames[i], err)
			}
		}
	}
	return nil
}

// gone forgives an error about what is not there any more, or what is in use by now.
func gone(i int, err error) error {
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return fmt.Errorf("delete from %s table: %w", familyNames[i], err)
}

// remove removes empty chains of a family's filter table, and the table if whole is set.
// iptables has no command for either. The kernel refuses if another program put a rule there
// meanwhile.
func remove(i int, chains []string, whole bool) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer c.Close()
	family := byte([2]int{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}[i])
	message := func(typ int, flags netlink.HeaderFlags, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags}, Data: data}
	}
	bounds := []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	batch := []netlink.Message{message(unix.NFNL_MSG_BATCH_BEGIN, 0, bounds)}
	const gently = netlink.HeaderFlags(unix.NLM_F_NONREC) | netlink.Acknowledge // never with its rules
	for _, name := range chains {
		data := attr([]byte{family, 0, 0, 0}, unix.NFTA_CHAIN_TABLE, text(filter)...)
		data = attr(data, unix.NFTA_CHAIN_NAME, text(name)...)
		batch = append(batch, message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELCHAIN, gently, data))
	}
	if whole {
		data := attr([]byte{family, 0, 0, 0}, unix.NFTA_TABLE_NAME, text(filter)...)
		batch = append(batch, message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, gently, data))
	}
	batch = append(batch, message(unix.NFNL_MSG_BATCH_END, 0, bounds))
	if err := c.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	if _, err := c.SendMessages(batch); err != nil {
		return err
	}
	for range batch[1 : len(batch)-1] {
		if _, err := c.Receive(); err != nil {
			return err
		}
	}
	return nil
}
