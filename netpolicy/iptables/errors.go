package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	goipt "github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/internal/plain"
)

var (
	// ErrNoIPTables says that the programs are not installed.
	ErrNoIPTables = errors.New("iptables is not installed")
	// ErrLocked says that another program held the lock of iptables for longer than
	// Options.Wait.
	ErrLocked = errors.New("somebody else holds the lock of iptables (/run/xtables.lock)")
	// ErrIncompatible says that the filter table has rules of nft that iptables cannot read.
	ErrIncompatible = errors.New("the filter table holds rules of nft that iptables cannot read: move them to a table of their own")
	// ErrSetFull says that a set has no room for another member.
	ErrSetFull = errors.New("the set is full")
	// ErrNoIPSet says that the kernel has no sets, or not this type of set.
	ErrNoIPSet = errors.New("the kernel lacks this type of set: load the modules ip_set, ip_set_hash_ip, ip_set_hash_net, ip_set_hash_netport, ip_set_hash_ipportip, ip_set_hash_netiface, xt_set")
	// ErrForeign says that something has a name of netguard's, and netguard did not make it.
	ErrForeign = errors.New("it is not of netguard's making: rename or remove it")
	// ErrNoBridgeFilter says that frames within a bridge never reach iptables.
	ErrNoBridgeFilter = errors.New("br_netfilter is not loaded: put net.bridge.bridge-nf-call-iptables=0 and net.bridge.bridge-nf-call-ip6tables=0 into /etc/sysctl.d, so that other bridges stay as they are, then modprobe br_netfilter")
	// ErrInvalid says that a wish cannot be worded as rules of iptables.
	ErrInvalid = errors.New("the rule set is not one of netpolicy's")
	// ErrOvertaken says that another program wrote rules at the same moment, so that
	// netguard's are not the first.
	ErrOvertaken = errors.New("somebody else wrote rules at the same moment")
	// ErrNothingApplied says that there is nothing to work with: Apply has not
	// been called, or has failed.
	ErrNothingApplied = errors.New("no rules are in force: apply some first")
)

// RestoreError is a transaction that the kernel, or iptables, refused as a whole.
type RestoreError struct {
	Command string
	// Line is the line of Input that was at fault, counted from one, 0 if the program names
	// none. If it names the COMMIT, any line may be at fault.
	Line   int
	Input  string
	Output string // of the program
	err    error
}

func (e *RestoreError) Error() string {
	s := fmt.Sprintf("%s: %s", e.Command, plain.Clip(oneLine(e.Output), 300))
	if e.Output == "" {
		s = fmt.Sprintf("%s: %v", e.Command, e.err)
	}
	if text := e.line(); text != "" {
		s += fmt.Sprintf(" (line %d: %q)", e.Line, plain.Clip(text, 300))
	}
	return s
}

func (e *RestoreError) Unwrap() error { return e.err }

func (e *RestoreError) line() string {
	lines := strings.Split(e.Input, "\n")
	if e.Line < 1 || e.Line > len(lines) {
		return ""
	}
	return lines[e.Line-1]
}

var lineNumber = regexp.MustCompile(`line:? ([0-9]+)`)

func restoreError(command, input, output string, err error) error {
	e := &RestoreError{Command: command, Input: input, Output: output, err: err}
	if m := lineNumber.FindStringSubmatch(output); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
	}
	if locked(output) {
		e.err = ErrLocked
	}
	return e
}

func locked(output string) bool {
	return strings.Contains(output, "xtables lock") || strings.Contains(output, "Resource temporarily unavailable")
}

// commandError turns an error of go-iptables into one of this package, if there is one for it.
func commandError(err error) error {
	var e *goipt.Error
	if errors.As(err, &e) && locked(e.Error()) {
		return fmt.Errorf("%w: %s", ErrLocked, plain.Clip(oneLine(e.Error()), 300))
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNoIPTables, err)
	}
	return err
}

// RemainError says that a list of connections was gone over, and that not all is as it has to
// be: some connections remain, or a note is missing.
type RemainError struct {
	// Addrs are the addresses of the connections that remain. There may be none.
	Addrs map[netip.Addr]bool
	First error
	More  int // errors after it
}

// and adds an error. It keeps the first one: there may be as many as the kernel has connections.
func (e *RemainError) and(err error, addrs ...netip.Addr) *RemainError {
	if e == nil {
		e = &RemainError{Addrs: map[netip.Addr]bool{}, First: err}
	} else {
		e.More++
	}
	for _, a := range addrs {
		e.Addrs[a] = true
	}
	return e
}

func (e *RemainError) Error() string {
	if e.More > 0 {
		return fmt.Sprintf("%v (and %d more errors)", e.First, e.More)
	}
	return e.First.Error()
}

func (e *RemainError) Unwrap() error { return e.First }

// hashFull is IPSET_ERR_HASH_FULL, which nl lacks.
const hashFull = nl.IPSET_ERR_TYPE_SPECIFIC

// setError turns an error of the kernel's ipset into one of this package, if there is one for it.
func setError(err error) error {
	var code int
	var errno unix.Errno
	var private nl.IPSetError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &private):
		code = int(private)
	case errors.As(err, &errno):
		code = int(errno)
	}
	switch code {
	case hashFull:
		return ErrSetFull
	case nl.IPSET_ERR_FIND_TYPE:
		return ErrNoIPSet
	case nl.IPSET_ERR_TYPE_MISMATCH:
		return ErrForeign
	}
	if code >= nl.IPSET_ERR_PRIVATE {
		return nl.IPSetError(code)
	}
	return err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
