package agent

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"netguard/internal/asroot"
)

// inNamespace gives the test's thread a network namespace of its own.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
}

func nft(t *testing.T, commands ...string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

func TestTables(t *testing.T) {
	asroot.Only(t)
	done := make(chan struct{})
	go func() { // on a thread that is thrown away
		defer close(done)
		inNamespace(t)
		tables, woken := &nftNotices{}, make(chan struct{}, 10_000)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		socket, err := listenTables()
		if err != nil {
			t.Error(err)
			cancel()
			return
		}
		go func() { ended <- tables.follow(ctx, socket, func() { woken <- struct{}{} }) }()
		defer func() {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		}()
		wakes := func(what string) {
			t.Helper()
			select {
			case <-woken:
			case <-time.After(10 * time.Second):
				t.Errorf("nobody was woken by %s", what)
			}
		}
		// Others' tables, however many. What was said of them came before what
		// comes now.
		var others []string
		for i := range 1000 {
			others = append(others, fmt.Sprintf("add table inet mine%d", i))
		}
		nft(t, append(others, "add table ip nat", "add table bridge mine", "add chain bridge mine netguard", "flush table ip nat")...)
		nft(t, "add table bridge netguard")
		wakes("the guard's table")
		if len(woken) > 0 {
			t.Errorf("woken %d times by others", len(woken))
		}
		if changed, by := tables.Rules(); changed {
			t.Errorf("rules of iptables were changed, by %v", by)
		}
		nft(t, "add table inet netguard")
		wakes("the table of limits")
		nft(t, "add table arp netguard")
		wakes("the table of ARP")
		if !tables.Guard() || tables.Guard() {
			t.Error("it is not noted once that the guard's tables were changed")
		}
		// The end of a transaction says whose it was, and is what wakes.
		nft(t, "add table ip filter", "add chain ip filter FORWARD")
		wakes("iptables' table")
		if changed, by := tables.Rules(); !changed || len(by) != 1 || by[0] != "nft" {
			t.Errorf("changed = %t, by %v, want nft", changed, by)
		}
		if len(woken) > 0 {
			t.Errorf("woken %d times more by one transaction", len(woken))
		}
		// The guard's tables wake as well, before the end of the transaction.
		nft(t, "add table ip6 filter", "flush ruleset")
		changed := false
		for late := time.After(10 * time.Second); !changed; {
			select {
			case <-woken:
				changed, _ = tables.Rules()
			case <-late:
				t.Error("a flush is no change")
				return
			}
		}
	}()
	<-done
}
