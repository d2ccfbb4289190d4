package iptables_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ti-mo/conntrack"

	"netguard/netpolicy/iptables"
	"netguard/netpolicy/iptables/iptablestest"
)

// plane is what an agent needs of the kernel.
type plane interface {
	Apply(context.Context, iptables.Wish) (iptables.Report, error)
	Verify(context.Context) (iptables.Drift, error)
	Glance() (bool, error)
	Bridges(map[string]bool) ([]string, error)
	Begin(ctx context.Context, old map[netip.Addr]bool, all bool, wake func()) error
	Next(keep func(iptables.Flow) bool) (iptables.CutReport, bool, error)
}

func (s *stage) cut(t *testing.T, old map[netip.Addr]bool, all bool, keep func(iptables.Flow) bool) (iptables.CutReport, error) {
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	if err := s.Begin(t.Context(), old, all, wake); err != nil {
		return iptables.CutReport{}, err
	}
	for {
		if r, done, err := s.Next(keep); done {
			return r, err
		}
		<-woken
	}
}

// stage is a host, and what others do there.
type stage struct {
	plane
	open func() plane // another process's

	deleteRules, displace, rewrite, emptySets func()
	foreign, notForeign                       func(set string)
	full                                      func(set string, room int)
	// overtake has another program write rules first, while the next Apply writes.
	overtake func()
	// keep holds fast what is there now, when it is to be taken away, until letGo.
	keep, letGo func()
	// meets tells whether packets meet the rules of a generation before all others.
	meets func(letter string) bool

	addBridge    func(name string)
	switchOff    func(name string)
	handsOver    func(name string) bool
	noFilter     func()
	connect      func(iptables.Flow)
	hasConnected func() []string
}

func text(f iptables.Flow) string { return f.Src.String() + " " + f.Dst.String() }

func onFake(*testing.T) *stage {
	k := iptablestest.New()
	failAt := func(at iptablestest.Step, err error) {
		k.Fail = func(s iptablestest.Step, _ string) error {
			if s == at {
				return err
			}
			return nil
		}
	}
	return &stage{plane: k.Open(), open: func() plane { return k.Open() },
		deleteRules: k.DeleteRules, displace: k.Displace, rewrite: k.Rewrite, emptySets: k.EmptySets,
		foreign: k.AddForeignSet, notForeign: k.RemoveForeignSet, full: func(_ string, room int) { k.Room = room },
		overtake: func() {
			k.Fail = func(s iptablestest.Step, _ string) error {
				if s != iptablestest.Lead {
					return nil
				}
				k.Fail = nil
				return iptables.ErrOvertaken
			}
		},
		keep:  func() { failAt(iptablestest.Remove, errors.New("it is in use")) },
		letGo: func() { k.Fail = nil },
		meets: func(letter string) bool {
			w, ok := k.InForce()
			return ok && strings.HasPrefix(w.Rules.Generation, letter)
		},
		addBridge: func(name string) { k.AddBridge(name, false) }, switchOff: k.SwitchOff, handsOver: k.HandsOver,
		noFilter: func() { k.NoBridgeFilter = true },
		connect:  func(f iptables.Flow) { k.Connect(f) },
		hasConnected: func() (out []string) {
			for _, f := range k.Connections() {
				out = append(out, text(f))
			}
			return out
		}}
}

func onKernel(t *testing.T) *stage {
	iptables.Alone(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	iptables.Run(t, "ipset", "create", "strangers", "hash:net")
	iptables.Run(t, "ipset", "create", "strangers6", "hash:ip", "family", "inet6")
	iptables.Docker(t, iptables.NFT)
	// iptables-save, before which another program writes what it is told to.
	dir := t.TempDir()
	order := filepath.Join(dir, "order")
	real, err := exec.LookPath("iptables-save")
	must(err)
	script := "#!/bin/sh\nif [ -e " + order + " ] && iptables -S DOCKER-USER | grep -q NG-FORWARD; then rm " + order +
		"; iptables -I FORWARD -i virbr0 -j ACCEPT; fi\nexec " + real + ` "$@"` + "\n"
	must(os.WriteFile(filepath.Join(dir, "iptables-save"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	newDriver := func() *iptables.Driver {
		d, err := iptables.Open(t.Context(), iptables.Options{})
		must(err)
		t.Cleanup(d.Close)
		return d
	}
	run := func(name string, args ...string) { iptables.Run(t, name, args...) }
	d := newDriver()
	connections := func() *conntrack.Conn {
		c, err := conntrack.Dial(nil)
		must(err)
		return c
	}
	return &stage{plane: d, open: func() plane { return newDriver() },
		deleteRules: func() { run("iptables", "-F", "NG-FORWARD"); run("ip6tables", "-F", "NG-FORWARD") },
		displace:    func() { run("iptables", "-I", "FORWARD", "-i", "br-new", "-o", "br-new", "-j", "ACCEPT") },
		rewrite:     func() { run("iptables", "-A", "DOCKER", "-s", "192.0.2.1", "-j", "RETURN") },
		emptySets: func() {
			for name := range strings.FieldsSeq(iptables.Run(t, "ipset", "list", "-n")) {
				if strings.HasPrefix(name, "ng") {
					run("ipset", "flush", name)
				}
			}
		},
		foreign:    func(set string) { run("ipset", "create", set, "hash:net,port") },
		notForeign: func(set string) { run("ipset", "destroy", set) },
		full:       func(set string, room int) { run("ipset", "create", set, "hash:ip", "maxelem", strconv.Itoa(room)) },
		overtake:   func() { must(os.WriteFile(order, nil, 0o600)) },
		keep:       func() { run("iptables", "-A", "DOCKER", "-j", "NG-F-aaaaaaaaaaaa") },
		letGo:      func() { run("iptables", "-F", "DOCKER") },
		meets: func(letter string) bool {
			rules, first := iptables.Run(t, "iptables", "-S"), "-A FORWARD -m conntrack --ctstate NEW -j NG-FORWARD"
			return first == rules[strings.Index(rules, "-A FORWARD"):][:len(first)] && strings.Contains(rules, "-j NG-F-"+letter)
		},
		addBridge: func(name string) {
			run("ip", "link", "add", name, "type", "bridge")
			run("ip", "link", "set", name, "type", "bridge", "nf_call_iptables", "0", "nf_call_ip6tables", "0")
		},
		switchOff: func(name string) { run("ip", "link", "set", name, "type", "bridge", "nf_call_iptables", "0") },
		handsOver: func(name string) bool {
			return strings.Contains(iptables.Run(t, "ip", "-d", "link", "show", name), "nf_call_iptables 1 ")
		},
		noFilter: func() { iptables.NoBridge(d) },
		connect: func(f iptables.Flow) {
			c := connections()
			defer c.Close()
			must(c.Create(conntrack.NewFlow(uint8(f.Proto), conntrack.StatusConfirmed, f.Src.Addr(), f.Dst.Addr(), f.Src.Port(), f.Dst.Port(), 300, 0)))
		},
		hasConnected: func() (out []string) {
			c := connections()
			defer c.Close()
			all, err := c.Dump(nil)
			must(err)
			for _, f := range all {
				src, dst := f.TupleOrig, f.TupleReply
				out = append(out, text(iptables.Flow{Src: netip.AddrPortFrom(src.IP.SourceAddress, src.Proto.SourcePort), Dst: netip.AddrPortFrom(dst.IP.SourceAddress, dst.Proto.SourcePort)}))
			}
			return out
		}}
}

// apply applies, and fails the test unless that does what it should.
func (s *stage) apply(t *testing.T, w iptables.Wish) iptables.Report {
	t.Helper()
	r, err := s.Apply(t.Context(), w)
	if err != nil || !r.InForce {
		t.Fatalf("report %+v, error %v", r, err)
	}
	return r
}

func (s *stage) verify(t *testing.T, found bool) iptables.Drift {
	t.Helper()
	d, err := s.Verify(t.Context())
	if err != nil || len(d.Changes) > 0 != found {
		t.Fatalf("drift %+v, error %v", d, err)
	}
	return d
}
