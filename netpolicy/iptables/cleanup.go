package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

// Cleanup takes away everything that netguard put into iptables, ipset and the
// bridges' flags, whoever of its kind put it there, and leaves what others put
// there as it is. First the rules go, then what they need. It goes on after an
// error, and can be called again.
func (d *Driver) Cleanup(ctx context.Context) error {
	d.kernel, d.settled, d.wish, d.generation, d.layouts = nil, false, nil, "", [2]*layout{}
	k, err := d.read(ctx)
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	var faults []error
	for _, i := range d.families {
		faults = append(faults, d.clear(ctx, k.active, i, k.tables[i]))
	}
	for _, s := range k.stale {
		faults = append(faults, d.clear(ctx, s.backend, s.family, s.table))
	}
	faults = append(faults, d.Bridges(nil))
	for _, name := range sortedKeys(k.sets) {
		faults = append(faults, d.release(ctx, name))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// clear removes netguard's rules from a table, and the table if netguard made it.
func (d *Driver) clear(ctx context.Context, b *backend, i int, t *table) error {
	lines := t.removals()
	if len(lines) == 0 {
		return nil
	}
	if err := b.write(ctx, i, transaction(nil, lines)); err != nil {
		return err
	}
	if !t.has(madeMark) || b.kind != NFT {
		return nil // the legacy tables stay until their module goes
	}
	after, err := b.read(ctx, i, false)
	if err != nil {
		return err
	}
	if !after.empty() {
		return nil
	}
	d.wrote++
	err = fault.Write("nft delete table", func() error { return deleteTable(i, after.chains) })
	if errors.Is(err, unix.ENOENT) { // the kernel's own are listed before they are there
		err = fault.Write("nft delete table", func() error { return deleteTable(i, nil) })
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("delete %s table: %w", familyNames[i], err)
	}
	return nil
}

// deleteTable removes the empty filter table of a family from nf_tables: iptables
// has no word for it. The kernel refuses if somebody put a rule there meanwhile.
func deleteTable(i int, chains []string) error {
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
	const gently = netlink.HeaderFlags(unix.NLM_F_NONREC) | netlink.Acknowledge // not with what it holds
	for _, name := range chains {
		data := attr([]byte{family, 0, 0, 0}, unix.NFTA_CHAIN_TABLE, text(filter)...)
		data = attr(data, unix.NFTA_CHAIN_NAME, text(name)...)
		batch = append(batch, message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELCHAIN, gently, data))
	}
	data := attr([]byte{family, 0, 0, 0}, unix.NFTA_TABLE_NAME, text(filter)...)
	batch = append(batch, message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, gently, data),
		message(unix.NFNL_MSG_BATCH_END, 0, bounds))
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
