package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"netguard/netpolicy/iptables"
)

const (
	// maxListing bounds the list of one family; a Kubernetes node has megabytes.
	maxListing = 64 << 20
	// listTimeout bounds one program.
	listTimeout = 20 * time.Second

	nft, legacy = "nf_tables", "legacy"
)

// readFirewall lists iptables' rules with its own programs, and all chains of
// nftables.
func readFirewall(ctx context.Context) Firewall {
	var f Firewall
	for _, suffix := range []string{"", "-nft", "-legacy"} {
		p, ok := programs(ctx, suffix)
		if ok && !slices.ContainsFunc(f.Programs, func(have Programs) bool { return have.Kind == p.Kind }) {
			f.Programs = append(f.Programs, p)
		}
	}
	var err error
	if f.Chains, err = nftChains(); err != nil {
		f.Err = fmt.Sprintf("nftables cannot be listed: %v", err)
	}
	if err == nil {
		if f.Untracked, err = iptables.NativeNotrack(); err != nil {
			f.Err = fmt.Sprintf("nftables cannot be listed: %v", err)
		}
	}
	if errors.Is(err, unix.EPERM) {
		// iptables-nft-save then lists nothing, and says that all is well.
		for i := range f.Programs {
			f.Programs[i].Err = "rules cannot be listed without CAP_NET_ADMIN"
		}
	}
	return f
}

// find looks where services' PATH may not lead as well.
func find(name string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// programs asks the iptables of this suffix what it holds.
func programs(ctx context.Context, suffix string) (p Programs, ok bool) {
	path, err := find("iptables" + suffix)
	if err != nil {
		return p, false
	}
	out, err := output(ctx, path, "--version")
	if err != nil {
		return p, false
	}
	p.Kind, p.Version = legacy, strings.TrimSpace(string(out))
	if strings.Contains(p.Version, nft) {
		p.Kind = nft
	}
	for i, name := range []string{"iptables", "ip6tables"} {
		// Nothing is there to list, and asking may load the module.
		if p.Kind == legacy && !legacyTables(i) {
			continue
		}
		path, err := find(name + suffix + "-save")
		if err != nil {
			continue // a host without IPv6 may have none
		}
		out, err := output(ctx, path)
		if err != nil {
			p.Err = fmt.Sprintf("%s: %v", filepath.Base(path), err)
			continue
		}
		p.Incompatible = p.Incompatible || bytes.Contains(out, []byte("# Table `filter' is incompatible"))
		if p.Tables[i], err = parseTables(out); err != nil {
			p.Err = fmt.Sprintf("%s: %v", filepath.Base(path), err)
		}
	}
	return p, true
}

// legacyTables tells whether the legacy backend has a table of IPv4 or IPv6 here.
func legacyTables(i int) bool {
	text, err := os.ReadFile("/proc/thread-self/net/" + []string{"ip_tables_names", "ip6_tables_names"}[i])
	return err == nil && len(bytes.TrimSpace(text)) > 0
}

// output runs a program and gives what it says, or the beginning of its complaint.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{to: &out, room: maxListing}, &limited{to: &complaint, room: 300}
	err := cmd.Run()
	switch text := strings.Join(strings.Fields(complaint.String()), " "); {
	case err != nil && text != "":
		return nil, errors.New(text)
	case err != nil:
		return nil, err
	case out.Len() == maxListing:
		return nil, fmt.Errorf("it lists more than %d MB", maxListing>>20)
	}
	return out.Bytes(), nil
}

// limited keeps the beginning of what is written to it.
type limited struct {
	to   io.Writer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.room)
	l.room -= n
	if _, err := l.to.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// parseTables reads what iptables-save lists.
func parseTables(text []byte) (map[string]Table, error) {
	tables := map[string]Table{}
	var t Table
	scan := bufio.NewScanner(bytes.NewReader(text))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := scan.Text()
		switch {
		case strings.HasPrefix(line, "*"):
			t = Table{}
			tables[line[1:]] = t
		case t == nil:
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			t[name] = nil
		case strings.HasPrefix(line, "-A "):
			chain, rule, _ := strings.Cut(line[len("-A "):], " ")
			t[chain] = append(t[chain], strings.TrimRight(rule, " "))
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	return tables, nil
}

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyBridge: "bridge", nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip",
	nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev",
}

// nftChains lists the chains of nftables, and looks into those of bridges.
func nftChains() ([]Chain, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	list, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	chains := make([]Chain, 0, len(list))
	for _, c := range list {
		out := Chain{Family: familyNames[c.Table.Family], Table: c.Table.Name, Name: c.Name}
		if c.Table.Family == nftables.TableFamilyBridge && c.Hooknum != nil {
			// ebtables leaves chains that are empty and accept.
			rules, err := conn.GetRules(c.Table, c)
			out.Busy = err != nil || len(rules) > 0 || c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		}
		chains = append(chains, out)
	}
	return chains, nil
}
