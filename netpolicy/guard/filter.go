package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// buffer is for the answers to a batch, one for each message.
const buffer = 4 << 20

// filter reads and writes a table.
type filter struct {
	family nftables.TableFamily
	name   string // of the table
	nft    *nftables.Conn
	raw    *netlink.Conn // the same socket
	dump   *asker        // for what is read without the library
	// learned gives the text with which a chain was written, by the chain's name and the
	// text that this kernel gives back.
	learned map[[2]string]string
}

func openFilter(family nftables.TableFamily, name string) (*filter, error) {
	f := &filter{family: family, name: name, learned: map[[2]string]string{}}
	var err error
	if f.dump, err = newAsker(unix.NETLINK_NETFILTER, false); err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	if err := f.open(); err != nil {
		f.dump.close()
		return nil, err
	}
	return f, nil
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
	f.dump.close()
	_ = f.nft.CloseLasting()
}

// reopen throws away the library's socket, in which answers may be left.
func (f *filter) reopen() error {
	_ = f.nft.CloseLasting()
	return f.open()
}

func (f *filter) deadline() {
	_ = f.raw.SetDeadline(time.Now().Add(patience))
}

func (f *filter) table() *nftables.Table {
	return &nftables.Table{Family: f.family, Name: f.name}
}

// title is the table as nft(8) names it.
func (f *filter) title() string {
	return map[nftables.TableFamily]string{bridgeFamily: "bridge ", limitFamily: "inet ", arpFamily: "arp "}[f.family] + f.name
}

// generation gives the number of the namespace's rule set. Each change by any program makes a
// new number.
func (f *filter) generation() (uint32, error) {
	var n uint32
	err := f.ask(unix.NFT_MSG_GETGEN, 0, func(*netlink.AttributeEncoder) {}, func(data []byte) error {
		return attributes(data, readGeneration(&n))
	})
	if err == nil && n == 0 {
		err = errors.New("no answer")
	}
	if err != nil {
		return 0, fmt.Errorf("get generation of nftables: %w", err)
	}
	return n, nil
}

// readGeneration reads the attribute with a generation.
func readGeneration(into *uint32) func(typ uint16, value []byte) error {
	return func(typ uint16, value []byte) error {
		if typ == unix.NFTA_GEN_ID && len(value) == 4 {
			*into = binary.BigEndian.Uint32(value)
		}
		return nil
	}
}

// tableState is what the kernel has of the table.
type tableState struct {
	present bool
	live    bool              // not dormant
	format  int               // of what wrote it; 1 if it does not say
	id      string            // the layout's
	rules   map[string]string // by chain; see chainContents
	sets    map[string]elements
	// generation is that of nftables when it was read.
	generation uint32
}

// keeps tells whether the sets are those of a layout.
func (s *tableState) keeps(l layout) bool {
	if !s.present || !s.live || l.id != "" && (s.format != Format || !strings.HasPrefix(s.id, l.setsID)) {
		return false
	}
	return !slices.ContainsFunc(l.sets, func(spec setSpec) bool { _, ok := s.sets[spec.name]; return !ok })
}

// admits tells whether the table lets a port pass with its MAC and its addresses.
func (s *tableState) admits(p *Port) bool {
	if s == nil || !s.present {
		return false
	}
	port := portKey(p.Index)
	has := func(set, key string) bool { _, ok := s.sets[set][element{key: key}]; return ok }
	if !has(setKnown, port) || has(setQuarantined, port) || !has(setMAC, port+macKey(p.MAC)) {
		return false
	}
	for _, a := range []netip.Addr{p.IPv4.Unmap(), p.IPv6.Unmap()} {
		if a.IsValid() && !has(set4or6(a, setV4, setV6), port+macKey(p.MAC)+string(a.AsSlice())) {
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
		if stray(err) {
			err = errors.Join(err, f.reopen())
		}
		after, gerr := f.generation()
		if gerr != nil {
			return nil, 0, gerr
		}
		if before != after {
			continue // somebody changed something meanwhile, perhaps here
		}
		s.generation = after
		return s, after, err
	}
	return nil, 0, errors.New("read table: nftables changes faster than it can be read")
}

func (f *filter) readOnce() (*tableState, error) {
	s := &tableState{rules: map[string]string{}, sets: map[string]elements{}}
	f.deadline()
	tables, err := f.nft.ListTablesOfFamily(f.family)
	if err != nil {
		return s, fmt.Errorf("list tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == f.name })
	if i < 0 {
		return s, nil
	}
	s.present, s.format = true, 1
	s.live = tables[i].Flags == 0
	chains, err := f.nft.ListChainsOfTableFamily(f.family)
	if err != nil {
		return s, fmt.Errorf("list chains: %w", err)
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name != f.name })
	for _, c := range chains {
		if format, ok := formatOf(c.Name); ok {
			s.format = max(s.format, format)
		}
	}
	if err := s.check(); err != nil {
		return s, err // this version may not be able to read the rest
	}
	contents, err := f.contents()
	if err != nil {
		return s, err
	}
	for _, c := range chains {
		if strings.HasPrefix(c.Name, layoutPrefix) {
			s.id = c.Name
		}
		s.rules[c.Name] = f.known(c.Name, strings.Join(append(headOf(c), contents[c.Name]...), "\n"))
	}
	return s, f.readSets(s)
}

// headOf gives the hook, the priority and the policy of a chain. It gives nothing for a chain
// that no hook calls.
func headOf(c *nftables.Chain) []string {
	if c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		return nil
	}
	return []string{fmt.Sprintf("%s hook %d priority %d"+policyOf+"%d", c.Type, *c.Hooknum, *c.Priority, *c.Policy)}
}

const policyOf = " policy "

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
		all := elements{}
		if err := f.elements(set.Name, func(e dumped) {
			if all[e.element] = e.comment; set.IsMap {
				all[e.element] = e.leads
			}
		}); err != nil {
			return err
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
	out := map[counted]uint64{}
	return out, f.elements(setViolations, func(e dumped) {
		if len(e.key) == 8 {
			out[counted{e.portOf(), kind(binary.NativeEndian.Uint32([]byte(e.key[4:])))}] = e.packets
		}
	})
}
