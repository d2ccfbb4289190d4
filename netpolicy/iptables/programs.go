package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goipt "github.com/coreos/go-iptables/iptables"

	"netguard/internal/fault"
)

// filter is the only table that netguard writes to.
const filter = "filter"

// Backend is which of the kernel's two packet filters iptables writes to.
type Backend string

const (
	NFT    Backend = "nf_tables"
	Legacy Backend = "legacy"
)

// backend is a Backend with its programs.
type backend struct {
	kind   Backend
	fam    [2]programs // IPv4, IPv6
	forked *int
	wait   time.Duration
}

// programs are the programs of a family. The library runs single commands. It has no function
// that reads or writes a whole table, so save and restore are run here.
type programs struct {
	command, save, restore string
	// rule makes the library's handle when it is first needed. The library runs a program then.
	rule func() (*goipt.IPTables, error)
}

// familyNames are used in errors and findings.
var familyNames = [2]string{"IPv4", "IPv6"}

// Programs are iptables' programs as they are installed. The backend of the command "iptables" is
// the first, because Docker runs that command. The other backend follows.
//
// All Drivers with the same Programs have to be in one network namespace: one Driver uses a table
// that another one has read.
type Programs struct {
	found []backend
	ipv6  bool
	// tried says that the backends that this kernel lacks are left out.
	tried bool
	// seen are the tables as they were read last, by a tableKey. A table is never changed after
	// it was read.
	seen sync.Map
}

type tableKey struct {
	kind   Backend
	family int
}

// Find finds the installed programs and asks them for their versions, all at once. The error
// is ErrNoIPTables where there are none.
func Find() (*Programs, error) { return findPrograms(5*time.Second, hasIPv6()) }

func findPrograms(wait time.Duration, ipv6 bool) (*Programs, error) {
	var faults []error
	var all []*backend
	var files []string
	for _, suffix := range []string{"", "-nft", "-legacy"} {
		b, file, err := findBackend(suffix, wait, ipv6)
		switch {
		case err != nil:
			faults = append(faults, err)
		case !slices.Contains(files, file): // else it is the same one by another name
			all, files = append(all, b), append(files, file)
		}
	}
	asked := make([]func() error, len(all))
	for i, b := range all {
		asked[i] = b.ask()
	}
	p := &Programs{ipv6: ipv6}
	for i, b := range all {
		err := asked[i]()
		switch known := slices.ContainsFunc(p.found, func(o backend) bool { return o.kind == b.kind }); {
		case err != nil:
			faults = append(faults, err)
		case !known:
			p.found = append(p.found, *b)
		}
	}
	if len(p.found) == 0 {
		return nil, errors.Join(faults...)
	}
	return p, nil
}

// backends gives the backends to one Driver, which counts its forks.
func (p *Programs) backends(forked *int) []*backend {
	out := make([]*backend, len(p.found))
	for i, b := range p.found {
		b.forked = forked
		out[i] = &b
	}
	return out
}

// findBackend finds the programs of a backend. Two backends with the same file are the same.
func findBackend(suffix string, wait time.Duration, ipv6 bool) (b *backend, file string, err error) {
	b = &backend{wait: wait, forked: new(int)}
	for i, name := range []string{"iptables", "ip6tables"} {
		if i == 1 && !ipv6 {
			continue
		}
		var paths [3]string
		for j, tail := range []string{"", "-save", "-restore"} {
			if paths[j], err = find(name + suffix + tail); err != nil {
				return b, "", err
			}
		}
		proto := []goipt.Protocol{goipt.ProtocolIPv4, goipt.ProtocolIPv6}[i]
		b.fam[i] = programs{paths[0], paths[1], paths[2], sync.OnceValues(func() (*goipt.IPTables, error) {
			return goipt.New(goipt.IPFamily(proto), goipt.Path(paths[0]), goipt.Timeout(b.seconds()))
		})}
		target, err := filepath.EvalSymlinks(paths[0])
		if err != nil {
			return b, "", fmt.Errorf("find %s: %w", paths[0], err)
		}
		file += target + "\n"
	}
	return b, file, nil
}

// ask asks the programs which backend they write to. The function that it gives waits for the
// answer.
func (b *backend) ask() func() error {
	var answers [2]func() (string, error)
	for i, p := range b.fam {
		if p.command != "" {
			answers[i] = b.begin(context.Background(), p.command, []string{"--version"}, "")
		}
	}
	return func() error {
		for i, answer := range answers {
			if answer == nil {
				continue
			}
			version, err := answer()
			if err != nil {
				return fmt.Errorf("ask %s for its version: %w", b.fam[i].command, err)
			}
			if b.kind = Legacy; strings.Contains(version, string(NFT)) {
				b.kind = NFT
			}
		}
		return nil
	}
}

func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} { // not on every service's PATH
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", name, ErrNoIPTables)
}

// seconds is the wait in whole seconds, as iptables takes it. 0 would mean for ever.
func (b *backend) seconds() int {
	return max(1, int((b.wait+time.Second-1)/time.Second))
}

// present tells whether the backend has a filter table in this namespace. A legacy program
// that is asked makes one.
func (b *backend) present(i int) bool {
	if b.kind == NFT {
		return true // listing it makes nothing
	}
	return slices.Contains(legacyTables(i), filter)
}

// legacyTables are the tables of the legacy backend in this network namespace.
func legacyTables(i int) []string {
	text, _ := os.ReadFile("/proc/thread-self/net/" + []string{"ip_tables_names", "ip6_tables_names"}[i])
	return strings.Fields(string(text))
}

// read lists the filter table.
func (b *backend) read(ctx context.Context, i int) (*table, error) {
	return b.beginList(ctx, i, filter)()
}

// beginList begins to list a table. The function that it gives waits for the list.
func (b *backend) beginList(ctx context.Context, i int, name string) func() (*table, error) {
	list := b.begin(ctx, b.fam[i].save, []string{"-t", name}, "")
	return func() (*table, error) {
		out, err := list()
		if err != nil {
			return nil, fmt.Errorf("list %s table %s: %w", familyNames[i], name, err)
		}
		return parseTable(out, name)
	}
}

// write runs a transaction: all of it, or nothing.
func (b *backend) write(ctx context.Context, i int, input string) error {
	return b.beginWrite(ctx, i, input)()
}

// beginWrite begins a transaction. The function that it gives waits for the end.
func (b *backend) beginWrite(ctx context.Context, i int, input string) func() error {
	made, err := fault.Begin("iptables-restore")
	var end func() (string, error)
	if err == nil {
		end = b.begin(ctx, b.fam[i].restore, []string{"--noflush", "--wait", strconv.Itoa(b.seconds())}, input)
	}
	return func() error {
		if err == nil {
			_, fault := end()
			err = made(fault)
		}
		if err != nil {
			return fmt.Errorf("write %s rules: %w", familyNames[i], err)
		}
		return nil
	}
}
