package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tables follows the kernel's messages about nftables, which the guard and
// iptables' nft backend use. (Neither iptables' legacy backend nor ipset tell.)
type tables struct {
	changed atomic.Bool
}

// watch notes changes until ctx ends, netguard's own among them. A kernel
// without nftables has none.
func (t *tables) watch(ctx context.Context, wake func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return errors.Join(fmt.Errorf("subscribe to nftables: %w", err), conn.Close())
	}
	// A big change is many messages; those that are lost are noted all the same.
	_ = conn.SetReadBuffer(1 << 20)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	for {
		_, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("receive nftables messages: %w", err)
		}
		if !t.changed.Swap(true) {
			wake()
		}
	}
}
