package iptables

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// cmdOf names the program of the backend in use.
func cmdOf(d *Driver, ipv6 bool) string {
	cmd := "iptables"
	if ipv6 {
		cmd = "ip6tables"
	}
	return cmd + map[Backend]string{NFT: "-nft", Legacy: "-legacy"}[d.Backend()]
}

func TestVerify(t *testing.T) {
	ctx := context.Background()
	type breakage struct {
		name string
		do   func(t *testing.T, v4, v6 string)
		says string
	}
	r := func(args ...string) func(*testing.T, string, string) {
		return func(t *testing.T, v4, v6 string) {
			switch args[0] {
			case "4":
				run(t, v4, args[1:]...)
			case "6":
				run(t, v6, args[1:]...)
			default:
				run(t, args[0], args[1:]...)
			}
		}
	}
	breakages := []breakage{
		{"a_jump_is_gone", r("4", "-D", "INPUT", "1"), "jump to NG-INPUT is not the first"},
		{"the_forward_jump_is_gone", r("6", "-F", "DOCKER-USER"), "jump to NG-FORWARD is not the first rule of DOCKER-USER"},
		{"somebody_accepts_first", r("4", "-I", "DOCKER-USER", "-j", "ACCEPT"), "jump to NG-FORWARD is not the first"},
		{"somebody_accepts_even_before_docker", r("4", "-I", "FORWARD", "-i", "virbr0", "-j", "ACCEPT"), "jump to NG-FORWARD is not the first rule of FORWARD"},
		{"a_jump_is_there_twice", r("4", "-A", "OUTPUT", "-j", "NG-OUTPUT"), "more than one jump to NG-OUTPUT"},
		{"a_chain_is_flushed", r("6", "-F", "NG-FORWARD"), "chain NG-FORWARD was changed"},
		{"a_chain_accepts", r("4", "-I", "NG-FI-aaaaaaaaaaaa", "-j", "ACCEPT"), "chain NG-FI-aaaaaaaaaaaa was changed"},
		{"a_rule_is_gone", r("4", "-D", "NG-F-aaaaaaaaaaaa", "2"), "chain NG-F-aaaaaaaaaaaa was changed"},
		{"a_chain_is_left_over", r("4", "-N", "NG-F-cccccccccccc"), "chain NG-F-cccccccccccc is left over"},
		{"a_set_is_left_over", r("ipset", "create", "ng4-s-cccccccccccccccc", "hash:ip"), "set ng4-s-cccccccccccccccc is left over"},
		{"a_set_is_flushed", r("ipset", "flush", "ng4-ii-aaaaaaaaaaaa"), "set ng4-ii-aaaaaaaaaaaa lacks 2 members"},
		{"a_member_is_too_many", r("ipset", "add", "ng6-sw-aaaaaaaaaaaaaaaa", "2001:db8::bad"), "ng6-sw-aaaaaaaaaaaaaaaa has 1 members too many"},
		{"everything_is_flushed", func(t *testing.T, v4, v6 string) {
			run(t, v4, "-F")
			run(t, v4, "-X")
			run(t, "ipset", "destroy", "ng4-ii-aaaaaaaaaaaa")
		}, "set ng4-ii-aaaaaaaaaaaa is missing"},
	}
	for _, b := range breakages {
		forBackends(t, "tells_and_apply_repairs/"+b.name, func(t *testing.T) {
			d := open(t)
			w := states()[0].wish()
			apply(t, d, w)
			before := sorted(all(t))
			inSync(t, d)
			b.do(t, cmdOf(d, false), cmdOf(d, true))
			drift, err := d.Verify(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(drift.Changes, func(s string) bool { return strings.Contains(s, b.says) }) {
				t.Errorf("drift = %+v, want %q", drift, b.says)
			}
			if r := apply(t, d, w); !r.Changed() {
				t.Errorf("nothing was repaired: %+v", r)
			}
			inSync(t, d)
			// Netguard's own is as before; what a stranger did to himself stays.
			same(t, "netguard's own", own(before), own(sorted(all(t))))
		})
	}
	t.Run("needs_a_wish", func(t *testing.T) {
		namespace(t)
		if _, err := open(t).Verify(ctx); !errors.Is(err, ErrNothingApplied) {
			t.Errorf("error = %v", err)
		}
	})
}

// own gives the lines about netguard's chains and sets, but for the jumps, and for the
// notes of what was not there before.
func own(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, ":"+madePrefix) {
			continue
		}
		for _, start := range []string{":NG-", "-A NG-", "create ng", "add ng"} {
			if strings.HasPrefix(line, start) {
				out = append(out, line)
			}
		}
	}
	return strings.Join(out, "")
}

func TestAnchors(t *testing.T) {
	t.Run("move_when_docker_comes_and_back_when_it_goes", func(t *testing.T) {
		namespace(t)
		strangers(t)
		d := open(t)
		w := states()[0].wish()
		apply(t, d, w)
		inSync(t, d)
		if out := run(t, "iptables", "-S", "FORWARD"); !strings.Contains(out, "-A FORWARD -j NG-FORWARD") {
			t.Errorf("without Docker:\n%s", out)
		}
		docker(t, NFT)
		run(t, "iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
		run(t, "iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
		if drift, err := d.Verify(context.Background()); err != nil || len(drift.Changes) == 0 {
			t.Fatalf("drift = %+v, %v", drift, err)
		}
		apply(t, d, w)
		inSync(t, d)
		const begins = "-P FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate NEW -j NG-FORWARD\n-A FORWARD -j DOCKER-USER\n"
		if out := run(t, "iptables", "-S", "FORWARD"); !strings.HasPrefix(out, begins) || strings.Count(out, "NG-FORWARD") != 1 {
			t.Errorf("with Docker:\n%s", out)
		}
		// Docker puts its jumps first again, which does no harm, and then rules
		// about a new network.
		run(t, "iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
		run(t, "iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
		inSync(t, d)
		run(t, "iptables", "-I", "FORWARD", "-i", "br-new", "-j", "ACCEPT")
		run(t, "iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
		run(t, "iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
		if drift, err := d.Verify(context.Background()); err != nil || len(drift.Changes) != 1 || !drift.Displaced {
			t.Errorf("drift = %+v, %v, want that the jump is not the first", drift, err)
		}
		apply(t, d, w)
		inSync(t, d)
		run(t, "iptables", "-D", "FORWARD", "-i", "br-new", "-j", "ACCEPT")
		if out := run(t, "iptables", "-S", "DOCKER-USER"); !strings.HasPrefix(out, "-N DOCKER-USER\n-A DOCKER-USER -j NG-FORWARD\n") {
			t.Errorf("with Docker:\n%s", out)
		}
		run(t, "iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
		if drift, err := d.Verify(context.Background()); err != nil || len(drift.Changes) == 0 {
			t.Fatalf("drift = %+v, %v", drift, err)
		}
		apply(t, d, w)
		inSync(t, d)
		if out := run(t, "iptables", "-S", "FORWARD"); !strings.HasPrefix(out, "-P FORWARD ACCEPT\n-A FORWARD -j NG-FORWARD\n") {
			t.Errorf("nobody goes to DOCKER-USER:\n%s", out)
		}
		// Docker takes its jump away to put it first. The next moment netguard's
		// is where it was, with nothing done.
		run(t, "iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
		if out := run(t, "iptables", "-S", "DOCKER-USER"); !strings.HasPrefix(out, "-N DOCKER-USER\n-A DOCKER-USER -j NG-FORWARD\n") {
			t.Errorf("when Docker's jump is back:\n%s", out)
		}
		if drift, err := d.Verify(context.Background()); err != nil || !drift.Displaced {
			t.Errorf("drift = %+v, %v: it is not seen to be about jumps alone", drift, err)
		}
	})
	t.Run("docker_without_a_chain_for_users_is_docker_too", func(t *testing.T) {
		namespace(t)
		d := open(t)
		for _, looked := range []bool{true, false} { // nothing can have changed since
			if r := apply(t, d, states()[0].wish()); r.Looked != looked {
				t.Errorf("the kernel's rules were read first: %v", r.Looked)
			}
		}
		displaced := func(want bool, because string) {
			t.Helper()
			if drift, err := d.Verify(context.Background()); err != nil || len(drift.Changes) == 0 || drift.Displaced != want {
				t.Errorf("%s: drift = %+v, %v, taken for Docker's: %v", because, drift, err, !want)
			}
			if r := apply(t, d, states()[0].wish()); !r.Looked {
				t.Errorf("%s: not looked at again", because)
			}
			inSync(t, d)
		}
		run(t, "ip6tables", "-N", "DOCKER")
		run(t, "ip6tables", "-N", "DOCKER-ISOLATION-STAGE-1")
		for _, rule := range []string{"-i br-new -o br-new -j ACCEPT", "-i br-new ! -o br-new -j ACCEPT", "-o br-new -j DOCKER",
			"-o br-new -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j DOCKER-ISOLATION-STAGE-1"} {
			run(t, "ip6tables", append([]string{"-I", "FORWARD"}, strings.Fields(rule)...)...)
		}
		displaced(true, "rules of a new network")
		run(t, "ip6tables", "-I", "FORWARD", "-s", "2001:db8::1", "-j", "ACCEPT")
		displaced(false, "a stranger's rule")
		run(t, "ip6tables", "-D", "FORWARD", "-j", "NG-FORWARD")
		displaced(false, "no jump")
		for _, disturbed := range []bool{false, true} {
			run(t, "ip6tables", "-I", "FORWARD", "-o", "br-new", "-j", "DOCKER")
			if drift, err := d.Verify(context.Background()); err != nil || !drift.Displaced {
				t.Fatalf("not taken for Docker's, %v", err)
			}
			if disturbed {
				run(t, "iptables", "-F", "NG-INPUT")
			}
			if r := apply(t, d, states()[0].wish()); (len(r.Drift) > 0) != disturbed {
				t.Errorf("somebody flushed a chain meanwhile (%v), drift = %q", disturbed, r.Drift)
			}
		}
	})
	t.Run("follow_docker_to_the_other_backend", func(t *testing.T) {
		namespace(t)
		strangers(t)
		d := open(t)
		w := states()[0].wish()
		apply(t, d, w)
		if d.Backend() != NFT {
			t.Skipf("iptables of this machine is %s", d.Backend())
		}
		docker(t, Legacy)
		drift, err := d.Verify(context.Background())
		if err != nil || !slices.ContainsFunc(drift.Changes, func(s string) bool { return strings.Contains(s, "nf_tables backend, which Docker does not use") }) {
			t.Fatalf("drift = %+v, %v", drift, err)
		}
		apply(t, d, w)
		inSync(t, d)
		if d.Backend() != Legacy {
			t.Errorf("backend = %s", d.Backend())
		}
		if out := run(t, "iptables-nft", "-S"); strings.Contains(out, "NG-") {
			t.Errorf("left over:\n%s", out)
		}
	})
}

func TestCleanup(t *testing.T) {
	ctx := context.Background()
	forBackends(t, "leaves_no_trace", func(t *testing.T) {
		before := all(t)
		d := open(t)
		for _, s := range states() {
			apply(t, d, s.wish())
		}
		run(t, "ipset", "add", "ng4-cut", "10.77.0.1,udp:80,10.77.0.3")
		// Somebody else's, while netguard is at work.
		cmd := cmdOf(d, false)
		run(t, cmd, "-A", "DOCKER-USER", "-s", "192.0.2.7", "-j", "DROP")
		if err := d.Cleanup(ctx); err != nil {
			t.Fatal(err)
		}
		run(t, cmd, "-D", "DOCKER-USER", "-s", "192.0.2.7", "-j", "DROP")
		same(t, "kernel", before, all(t))
		if err := d.Cleanup(ctx); err != nil {
			t.Errorf("the second time: %v", err)
		}
	})
	forBackends(t, "removes_what_another_agent_left", func(t *testing.T) {
		before := all(t)
		d := open(t)
		apply(t, d, states()[5].wish())
		cmd := cmdOf(d, false)
		run(t, cmd, "-A", "FORWARD", "-j", "NG-FORWARD")
		run(t, cmd, "-N", "NG-FEL-bbbbbbbbbbbb")
		run(t, "ipset", "create", "ng6-s-bbbbbbbbbbbbbbbb", "hash:ip", "family", "inet6")
		if err := open(t).Cleanup(ctx); err != nil {
			t.Fatal(err)
		}
		same(t, "kernel", before, all(t))
	})
	t.Run("removes_the_table_that_netguard_made", func(t *testing.T) {
		namespace(t)
		before := run(t, "nft", "list", "ruleset") + all(t)
		d := open(t)
		if _, err := d.Verify(ctx); !errors.Is(err, ErrNothingApplied) {
			t.Fatal(err)
		}
		apply(t, d, states()[0].wish())
		if d.Backend() != NFT {
			t.Skipf("iptables of this machine is %s, whose tables go with their module", d.Backend())
		}
		apply(t, open(t), states()[3].wish()) // a restart remembers
		if err := d.Cleanup(ctx); err != nil {
			t.Fatal(err)
		}
		same(t, "kernel", before, run(t, "nft", "list", "ruleset")+all(t))
	})
	t.Run("leaves_the_table_that_others_use_since", func(t *testing.T) {
		namespace(t)
		d := open(t)
		apply(t, d, states()[0].wish())
		run(t, "iptables", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP")
		if err := d.Cleanup(ctx); err != nil {
			t.Fatal(err)
		}
		if out := run(t, "iptables", "-S"); out != "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-A FORWARD -s 192.0.2.1/32 -j DROP\n" {
			t.Errorf("left:\n%s", out)
		}
	})
	t.Run("deletes_no_table_with_a_rule_in_it", func(t *testing.T) {
		namespace(t)
		run(t, "iptables-nft", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP")
		run(t, "iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
		before := run(t, "iptables-nft-save")
		if err := remove(0, []string{"OUTPUT", "INPUT", "FORWARD"}, true); err == nil {
			t.Error("no error")
		}
		if out := run(t, "iptables-nft", "-S", "FORWARD"); !strings.Contains(out, "192.0.2.1") {
			t.Errorf("before:\n%s\nafter:\n%s", before, out)
		}
	})
}
