package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// chunk is how many elements go into one message: the attribute that holds
	// them has a length of 16 bits.
	chunk = 256
	// buffer is for the answers to a batch, one for each message.
	buffer = 4 << 20
)

// filter reads and writes the table.
type filter struct {
	name string // of the table
	nft  *nftables.Conn
	raw  *netlink.Conn // the same socket
}

func openFilter(name string) (*filter, error) {
	f := &filter{name: name}
	return f, f.open()
}

func (f *filter) open() error {
	nft, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		f.raw = c
		// A batch goes out in one piece. With CAP_NET_ADMIN the limits of
		// net.core do not count.
		return errors.Join(c.SetReadBuffer(buffer), c.SetWriteBuffer(buffer))
	}))
	if err != nil {
		return fmt.Errorf("open netlink for nftables: %w", err)
	}
	f.nft = nft
	return nil
}

func (f *filter) close() {
	if f.nft != nil {
		_ = f.nft.CloseLasting()
	}
}

func (f *filter) deadline() { _ = f.raw.SetDeadline(time.Now().Add(patience)) }

func (f *filter) table() *nftables.Table {
	return &nftables.Table{Family: bridgeFamily, Name: f.name}
}

// generation numbers the rule sets of the namespace: each change by anybody has a
// new number.
func (f *filter) generation() (uint32, error) {
	f.deadline()
	answers, err := f.raw.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4),
	})
	if err != nil {
		return 0, fmt.Errorf("get generation of nftables: %w", err)
	}
	for _, a := range answers {
		if len(a.Data) < 4 {
			break
		}
		ad, err := netlink.NewAttributeDecoder(a.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("parse generation of nftables: %w", err)
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, errors.New("get generation of nftables: no answer")
}

// tableState is what the kernel has of the table.
type tableState struct {
	present bool
	id      string            // the layout's
	rules   map[string]string // by chain; see layout.lines
	sets    map[string]elements
}

// matches tells whether the rules are those of a layout.
func (s *tableState) matches(l layout) bool {
	if !s.present || s.id != l.id || !maps.Equal(s.rules, l.lines()) {
		return false
	}
	for _, spec := range l.sets {
		if _, ok := s.sets[spec.name]; !ok {
			return false
		}
	}
	return true
}

// read reads the table, as it was at one generation.
func (f *filter) read() (*tableState, uint32, error) {
	for range 20 {
		before, err := f.generation()
		if err != nil {
			return nil, 0, err
		}
		s, err := f.readOnce()
		after, gerr := f.generation()
		if gerr != nil {
			return nil, 0, gerr
		}
		if before != after {
			continue // somebody changed something meanwhile, perhaps here
		}
		return s, after, err
	}
	return nil, 0, errors.New("read table: nftables changes faster than it can be read")
}

func (f *filter) readOnce() (*tableState, error) {
	s := &tableState{rules: map[string]string{}, sets: map[string]elements{}}
	f.deadline()
	tables, err := f.nft.ListTablesOfFamily(bridgeFamily)
	if err != nil {
		return s, fmt.Errorf("list tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == f.name })
	if i < 0 {
		return s, nil
	}
	s.present = true
	// With a flag, such as dormant, the layout stays unknown.
	live := tables[i].Flags == 0
	chains, err := f.nft.ListChainsOfTableFamily(bridgeFamily)
	if err != nil {
		return s, fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != f.name {
			continue
		}
		if strings.HasPrefix(c.Name, layoutPrefix) && live {
			s.id = c.Name
			continue
		}
		rules, err := f.nft.GetRules(f.table(), c)
		if err != nil {
			return s, fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		comments := make([]string, len(rules))
		for i, r := range rules {
			comments[i], _ = userdata.GetString(r.UserData, userdata.TypeComment)
		}
		s.rules[c.Name] = strings.Join(append(headOf(c), comments...), "\n")
	}
	return s, f.readSets(s)
}

// headOf is where a chain hangs and what it does by default, nothing for one that
// is only gone to.
func headOf(c *nftables.Chain) []string {
	if c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		return nil
	}
	return []string{fmt.Sprintf("%s hook %d priority %d policy %d", c.Type, *c.Hooknum, *c.Priority, *c.Policy)}
}

func (f *filter) readSets(s *tableState) error {
	found, err := f.nft.GetSets(f.table())
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, set := range found {
		if set.Dynamic {
			s.sets[set.Name] = nil // the rules' own
			continue
		}
		f.deadline()
		list, err := f.nft.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("list set %s: %w", set.Name, err)
		}
		all := make(elements, len(list))
		for _, e := range list {
			all[element{key: string(e.Key), end: string(e.KeyEnd)}] = e.Comment
		}
		s.sets[set.Name] = all
	}
	return nil
}

// counted is a counter's key.
type counted struct {
	port int
	kind kind
}

// violations reads the counters.
func (f *filter) violations() (map[counted]uint64, error) {
	f.deadline()
	list, err := f.nft.GetSetElements(&nftables.Set{Table: f.table(), Name: setViolations})
	if err != nil {
		return nil, fmt.Errorf("list violations: %w", err)
	}
	out := make(map[counted]uint64, len(list))
	for _, e := range list {
		if len(e.Key) == 8 && e.Counter != nil {
			out[counted{element{key: string(e.Key)}.portOf(), kind(binary.NativeEndian.Uint32(e.Key[4:]))}] = e.Counter.Packets
		}
	}
	return out, nil
}

// strangers reads the counter of frames between known and unknown ports.
func (f *filter) strangers() (uint64, error) {
	f.deadline()
	rules, err := f.nft.GetRules(f.table(), &nftables.Chain{Name: "refuse-stranger"})
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read counter of strangers: %w", err)
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				return c.Packets, nil
			}
		}
	}
	return 0, nil
}

// change is one transaction: all of it happens, or nothing.
type change struct {
	// replace makes the table anew, with this layout.
	replace  *layout
	existing bool // there is one to be removed
	add, del map[string]elements
}

func (c change) empty() bool { return c.replace == nil && size(c.add)+size(c.del) == 0 }

func size(sets map[string]elements) (n int) {
	for _, s := range sets {
		n += len(s)
	}
	return n
}

// commit sends a transaction.
func (f *filter) commit(c change, specs []setSpec) error {
	t := f.table()
	if c.replace != nil {
		if c.existing {
			f.nft.DelTable(t)
		}
		if err := f.create(t, *c.replace); err != nil {
			return err
		}
	}
	for _, spec := range specs {
		set := spec.build(t)
		// What goes first makes room for what comes: an element may be
		// replaced by a wider one.
		if err := inChunks(c.del[spec.name], func(e []nftables.SetElement) error {
			return f.nft.SetDeleteElements(set, e)
		}); err != nil {
			return fmt.Errorf("delete from set %s: %w", spec.name, err)
		}
		if err := inChunks(c.add[spec.name], func(e []nftables.SetElement) error {
			return f.nft.SetAddElements(set, e)
		}); err != nil {
			return fmt.Errorf("add to set %s: %w", spec.name, err)
		}
	}
	f.deadline()
	if err := f.nft.Flush(); err != nil {
		// Answers may be left in the socket.
		f.close()
		return errors.Join(fmt.Errorf("change table bridge %s: %w", f.name, err), f.open())
	}
	return nil
}

// create adds the table with its sets, chains and rules.
func (f *filter) create(t *nftables.Table, l layout) error {
	f.nft.AddTable(t)
	for _, spec := range l.sets {
		if err := f.nft.AddSet(spec.build(t), nil); err != nil {
			return fmt.Errorf("add set %s: %w", spec.name, err)
		}
	}
	f.nft.AddChain(&nftables.Chain{Table: t, Name: l.id})
	for _, name := range l.chains {
		f.nft.AddChain(buildChain(t, name))
	}
	for _, r := range l.rules {
		f.nft.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: r.chain}, Exprs: r.exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
	}
	return nil
}

// remove deletes the table; one that is not there is fine.
func (f *filter) remove() error {
	f.nft.DelTable(f.table())
	f.deadline()
	err := f.nft.Flush()
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	f.close()
	return errors.Join(fmt.Errorf("delete table bridge %s: %w", f.name, err), f.open())
}

func inChunks(all elements, send func([]nftables.SetElement) error) error {
	for part := range slices.Chunk(slices.Collect(maps.Keys(all)), chunk) {
		list := make([]nftables.SetElement, len(part))
		for i, e := range part {
			list[i] = e.build(all[e])
		}
		if err := send(list); err != nil {
			return err
		}
	}
	return nil
}
