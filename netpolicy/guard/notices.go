package guard

import (
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// notices are the kernel's messages about changes of nftables. They tell whether somebody
// else changed netguard's tables. The generation alone does not: Docker, iptables and all
// others change it as well.
//
// The kernel sends the messages of a transaction in order. Each message names the socket that
// made the change. The last one tells the new generation. The kernel also tells when messages
// were lost.
type notices struct {
	conn *netlink.Conn
	// mine are the tables of the driver: changes by their sockets are its own.
	mine []*filter
	// generation is the last one that the kernel reported.
	generation uint32
	// touched is the last generation in which another program changed a table of netguard's.
	touched uint32
	// pending: the transaction whose messages are arriving changes such a table.
	pending bool
	// lost: messages were lost, so that the tables must be read.
	lost bool
}

const (
	// noticePatience is how long to wait for the messages of a generation.
	noticePatience = 200 * time.Millisecond
	noticeBuffer   = 4 << 20

	nftaTable = 1 // NFTA_*_TABLE, NFTA_TABLE_NAME: in all messages but NEWGEN
)

// openNotices subscribes. It gives nil where that is not possible: then each new
// generation is a reason to read the tables.
func openNotices(mine ...*filter) *notices {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: answer})
	if err != nil {
		return nil
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		_ = conn.Close()
		return nil
	}
	_ = conn.SetReadBuffer(noticeBuffer)
	return &notices{conn: conn, mine: mine, lost: true}
}

func (n *notices) close() {
	if n != nil {
		_ = n.conn.Close()
	}
}

// begin forgets what was lost: the tables are about to be read.
func (n *notices) begin() {
	if n != nil {
		n.lost = false
	}
}

// untouched tells whether no other program changed netguard's tables between two generations.
// to is the present generation.
func (n *notices) untouched(from, to uint32) bool {
	if n == nil {
		return false
	}
	for deadline := time.Now().Add(noticePatience); !n.lost && before(n.generation, to); {
		if err := n.receive(deadline); err != nil {
			// A message that is only late counts as lost: without it nothing is sure.
			n.lost, n.pending = true, true
		}
	}
	return !n.lost && !before(from, n.touched)
}

// before tells whether one generation came before another.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// receive takes what has arrived, or waits for it.
func (n *notices) receive(deadline time.Time) error {
	if err := n.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	messages, err := n.conn.Receive()
	for _, m := range messages {
		n.message(m)
	}
	return err
}

func (n *notices) message(m netlink.Message) {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return
	}
	if m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
		_ = attributes(m.Data[4:], readGeneration(&n.generation))
		if n.pending {
			n.touched, n.pending = n.generation, false
		}
		return
	}
	switch nftables.TableFamily(m.Data[0]) {
	case bridgeFamily, limitFamily, arpFamily:
	default:
		return
	}
	if n.pending || slices.ContainsFunc(n.mine, func(f *filter) bool { return f.raw.PID() == m.Header.PID }) {
		return
	}
	_ = attributes(m.Data[4:], func(typ uint16, b []byte) error {
		n.pending = n.pending || typ == nftaTable && cut(b) == TableName
		return nil
	})
}

// observeTable reads the tables, unless no other program changed them. It tells whether it read
// them.
func (d *Driver) observeTable(full bool) (bool, error) {
	if !d.features.Filter {
		d.kernel.table = &tableState{}
		return false, nil
	}
	// At the first Apply they may be known from Earlier.
	if d.kernel.table != nil && (!full || d.plan == nil) {
		if same, err := d.same(); err != nil || same {
			return false, err
		}
	}
	return true, d.readTables()
}

// same tells whether the tables are as they are known to be: nobody else changed them
// since they were read.
func (d *Driver) same() (bool, error) {
	now, err := d.filter.generation()
	if err != nil {
		return false, err
	}
	if now != d.generation && !d.notices.untouched(d.generation, now) {
		return false, nil
	}
	d.generation = now
	return true, nil
}

// readTables reads all tables. If nftables changed in between, the next look at its
// generation tells.
func (d *Driver) readTables() error {
	d.notices.begin()
	d.counts = nil
	s, gen, err := d.filter.read()
	if err != nil {
		return err
	}
	d.kernel.table, d.generation = s, gen
	if d.features.Limits {
		if d.kernel.limits, _, err = d.limiter.read(); err != nil {
			return err
		}
	}
	if d.features.ARP {
		d.kernel.arp, _, err = d.arp.read()
	}
	return err
}
