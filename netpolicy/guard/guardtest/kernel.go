// Package guardtest is a fake kernel, for tests of code that uses a guard. It keeps what a
// Driver writes, and refuses what the kernel refuses. It has no clock and does no I/O.
package guardtest

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"netguard/netpolicy/guard"
)

// Op is a kind of write. Those of one Apply come in this order.
type Op string

const (
	Attach Op = "attach" // the checksum program to a port
	Pin    Op = "pin"    // the MACs and the neighbours of a port
	Commit Op = "commit" // the transaction of the table; of no port
	Set    Op = "set"    // the settings of a port
	Unpin  Op = "unpin"  // what a port is to have no more
)

// Kernel is a host: bridges, ports, and what is in force for them.
type Kernel struct {
	// Features are what a Driver of this kernel has. New sets all.
	Features guard.Features
	// Fail is called before each write. If it returns an error, the write fails with it. Port 0
	// means that the write is about no port. If Fail is nil, all writes succeed.
	Fail func(op Op, port int) error
	// Reads is called by each Apply and Earlier. If it returns an error, the call fails with
	// it. If Reads is nil, all reads succeed.
	Reads func() error
	// Writes counts the writes that succeeded.
	Writes int

	next       int
	bridges    map[int]bool
	ports      map[int]*port
	table      *table
	generation int // of the table: each change has a new one
}

// port is a bridge port as the kernel has it.
type port struct {
	bridge  int
	setting guard.State // Admitted, Quarantined, or "" as the kernel made it
	pins    string      // the MACs that are bound to it
	near    bool        // the neighbours of its addresses are permanent entries
	program bool        // the checksum program is attached
}

// table is netguard's rule set.
type table struct {
	options guard.Options
	bridges map[int]bool
	entries map[int]entry
}

// entry is what the table has of a port.
type entry struct {
	state guard.State // Admitted, Quarantined or Trusted
	macs  []guard.MAC
	addrs []netip.Addr
}

func (e entry) equal(f entry) bool {
	return e.state == f.state && slices.Equal(e.macs, f.macs) && slices.Equal(e.addrs, f.addrs)
}

func (t *table) equal(u *table) bool {
	return t != nil && t.options == u.options && maps.Equal(t.bridges, u.bridges) && maps.EqualFunc(t.entries, u.entries, entry.equal)
}

// admits tells whether the table lets a port pass with its MAC and its addresses.
func (t *table) admits(p guard.Port) bool {
	if t == nil {
		return false
	}
	e := t.entries[p.Index]
	if e.state != guard.Admitted || !slices.Contains(e.macs, p.MAC) {
		return false
	}
	for _, a := range []netip.Addr{p.IPv4.Unmap(), p.IPv6.Unmap()} {
		if a.IsValid() && !slices.Contains(e.addrs, a) {
			return false
		}
	}
	return true
}

// New makes a kernel without bridges.
func New() *Kernel {
	return &Kernel{bridges: map[int]bool{}, ports: map[int]*port{}, next: 1, Features: guard.Features{Locked: true, Sticky: true,
		Groups: true, Filter: true, Prefixes: true, Samples: true, Limits: true, ARP: true, Checksum: true}}
}

// AddBridge adds a bridge and gives its ifindex.
func (k *Kernel) AddBridge() int {
	k.next++
	k.bridges[k.next] = true
	return k.next
}

// AddPort adds a veth to a bridge and gives its ifindex.
func (k *Kernel) AddPort(bridge int) int {
	k.next++
	k.ports[k.next] = &port{bridge: bridge}
	return k.next
}

// Remove removes a port or a bridge. A port takes all that is at it along.
func (k *Kernel) Remove(index int) {
	delete(k.ports, index)
	delete(k.bridges, index)
	for _, p := range k.ports {
		if p.bridge == index {
			*p = port{} // in no bridge
		}
	}
}

// Move moves a port to another bridge, or with 0 to none. It has the settings of a new
// port then.
func (k *Kernel) Move(index, bridge int) {
	p := k.ports[index]
	*p = port{bridge: bridge, program: p.program}
}

// Unlock is somebody else who gives a port the settings of a new one.
func (k *Kernel) Unlock(index int) { k.ports[index].setting = "" }

// Unbind is somebody else who takes the MACs off a port.
func (k *Kernel) Unbind(index int) { k.ports[index].pins = "" }

// Forget is somebody else who removes the neighbours of a port's addresses.
func (k *Kernel) Forget(index int) { k.ports[index].near = false }

// Detach is somebody else who takes the program off a port.
func (k *Kernel) Detach(index int) { k.ports[index].program = false }

// Admit is somebody else who changes the table so that a port may send.
func (k *Kernel) Admit(index int) {
	t := *k.table
	t.entries = maps.Clone(t.entries)
	t.entries[index] = entry{state: guard.Trusted}
	k.commit(&t)
}

// Flush is somebody else who removes all tables.
func (k *Kernel) Flush() { k.commit(nil) }

func (k *Kernel) commit(t *table) {
	k.table = t
	k.generation++
}

// Sends tells whether what a port sends passes.
func (k *Kernel) Sends(index int) bool {
	p, t := k.ports[index], k.table
	switch {
	case p == nil || p.bridge == 0:
		return false
	case p.setting != "" && p.pins == "" && k.Features.Locked: // it is locked
		return false
	case t == nil || t.options.Mode == guard.Monitor:
		return true
	}
	if e, known := t.entries[index]; known {
		return e.state != guard.Quarantined
	}
	return t.options.Open || !t.bridges[p.bridge]
}

// write makes one write, unless it is to fail or the port is gone.
func (k *Kernel) write(op Op, index int, does func(*port)) error {
	if k.Fail != nil {
		if err := k.Fail(op, index); err != nil {
			return err
		}
	}
	if p := k.ports[index]; index == 0 || p != nil && p.bridge != 0 {
		does(p)
		k.Writes++
	}
	return nil
}

var errFailed = errors.New("it was to fail")

// After makes the n-th write, counted from 0, and all that follow fail.
func After(n int) func(Op, int) error {
	return func(Op, int) error {
		if n--; n < 0 {
			return errFailed
		}
		return nil
	}
}

// About makes all writes that are about one port fail.
func About(port int) func(Op, int) error {
	return func(_ Op, about int) error {
		if about == port {
			return errFailed
		}
		return nil
	}
}

// Whole makes the transaction fail, which is about all ports.
func Whole(op Op, _ int) error {
	if op == Commit {
		return errFailed
	}
	return nil
}
