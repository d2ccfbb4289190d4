package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/netpolicy/guard"
)

// nftNotices follows the kernel's messages about nftables. The guard and iptables' nft backend
// use nftables. iptables' legacy backend and ipset send no such messages.
type nftNotices struct {
	mu    sync.Mutex
	rules bool     // iptables' filter table was changed
	guard bool     // a table of the guard's was changed
	by    []string // the programs that did so, as the kernel names them
	// touched says that the transaction whose messages arrive now changed the filter table.
	touched bool
}

// maxNames bounds what is remembered of who changed something.
const maxNames = 4

// Rules tells whether the filter table was changed since the last call, and by
// which programs, netguard's own among them.
func (t *nftNotices) Rules() (bool, []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed, by := t.rules, t.by
	t.rules, t.by = false, nil
	return changed, by
}

// Guard tells whether a table of the guard's was changed since the last call, by
// netguard itself or by others.
func (t *nftNotices) Guard() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := t.guard
	t.guard = false
	return changed
}

// watch notes changes until ctx ends. It notes netguard's own changes too. A kernel without
// nftables sends no messages.
func (t *nftNotices) watch(ctx context.Context, wake func()) error {
	conn, err := listenTables()
	if err != nil {
		return err
	}
	return t.follow(ctx, conn, wake)
}

// listenTables subscribes, in the network namespace of the calling thread.
func listenTables() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to nftables: %w", err), conn.Close())
	}
	// A big change is many messages. If some are lost, the kernel reports ENOBUFS, and lost
	// notes a change of everything.
	_ = conn.SetReadBuffer(1 << 20)
	return conn, nil
}

// follow closes the socket when it ends.
func (t *nftNotices) follow(ctx context.Context, conn *netlink.Conn, wake func()) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			t.lost()
			wake()
			continue
		case err != nil:
			return fmt.Errorf("receive nftables messages: %w", err)
		}
		ours := false
		for _, m := range messages {
			ours = t.message(m) || ours
		}
		if ours {
			wake()
		}
	}
}

func (t *nftNotices) lost() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rules, t.guard, t.touched = true, true, true
}

const (
	nftaTable       = 1 // NFTA_*_TABLE, NFTA_TABLE_NAME: in all messages but NEWGEN
	nftaGenProcName = 3 // NFTA_GEN_PROC_NAME
	sizeofNfGenMsg  = 4
)

// message notes what one message says, and tells whether to wake the loop. Two messages do: one
// about the guard's table, and the end of a transaction that changed the filter table. Other
// programs may change their own tables at any rate, so these changes wake nobody.
func (t *nftNotices) message(m netlink.Message) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < sizeofNfGenMsg {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[sizeofNfGenMsg:])
	if err != nil {
		return false
	}
	end := m.Header.Type&0xff == unix.NFT_MSG_NEWGEN
	table, name := "", ""
	for ad.Next() {
		switch {
		case end && ad.Type() == nftaGenProcName:
			name = ad.String()
		case !end && ad.Type() == nftaTable:
			table = ad.String()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch family := m.Data[0]; {
	case end:
		// NEWGEN ends a transaction, and names the program that made it.
		touched := t.touched
		if t.touched = false; !touched {
			return false
		}
		t.rules = true
		if name != "" && len(t.by) < maxNames && !slices.Contains(t.by, name) {
			t.by = append(t.by, name)
		}
		return true
	case family == unix.NFPROTO_BRIDGE || family == unix.NFPROTO_INET || family == unix.NFPROTO_ARP:
		t.guard = t.guard || table == guard.TableName
		return table == guard.TableName
	case (family == unix.NFPROTO_IPV4 || family == unix.NFPROTO_IPV6) && table == "filter":
		t.touched = true
	}
	return false
}
