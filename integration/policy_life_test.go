package integration

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestPolicyLabels is what a label on a container does beyond the table of
// netpolicy/conformance: who is told what.
func TestPolicyLabels(t *testing.T) {
	t.Parallel()
	e := Start(t)
	e.Network("net", Subnet("198.18.61.0/24"), Subnet("fd00:61::/64"))
	services := []string{"tcp/80", "tcp/81"}
	run := func(name string, labels map[string]string) *guest {
		return welcome(t, e, name, "net", services, Service("shop", name), Labels(labels))
	}
	db := run("db", map[string]string{"netguard.ingress": "- from: [{service: api}]\n  ports: [tcp/80]\n"})
	quiet := run("quiet", map[string]string{"netguard.egress": "[]"})
	greedy := run("greedy", map[string]string{"netguard.ingress": "[{}]", "netguard.egress": "[{}]"})
	bad := run("bad", map[string]string{"netguard.ingress": "- form: [{service: api}]\n"})
	api, web := run("api", nil), run("web", nil)
	all := []*guest{db, quiet, greedy, bad, api, web}
	open := slices.Concat(api.to(true, web, services...), web.to(true, api, services...), api.to(true, greedy, services...), db.to(true, web, services...))
	t.Run("all_is_open_before", func(t *testing.T) {
		var pairs []*knock
		for _, from := range all {
			for _, to := range all {
				if from != to {
					pairs = append(pairs, from.to(true, to, services...)...)
				}
			}
		}
		mustKnock(t, pairs)
	})
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, len(all))
	t.Run("they_narrow_without_any_policy", func(t *testing.T) {
		mustKnock(t, slices.Concat(open, api.to(true, db, "tcp/80"), api.to(false, db, "tcp/81"), web.to(false, db, services...),
			quiet.to(false, web, services...), web.to(true, quiet, services...)))
	})
	t.Run("a_bad_one_isolates_its_own_container_and_nobody_else", func(t *testing.T) {
		mustKnock(t, slices.Concat(open, api.to(false, bad, services...), bad.to(false, api, services...)))
		r := book.a.For(t).CLI("status", "bad")
		text := strings.Join(strings.Fields(r.Stdout), " ")
		if r.Code != 1 || !strings.Contains(text, "netguard.ingress") || !strings.Contains(text, "form") || !strings.Contains(text, "from") {
			t.Errorf("status does not say label, fault and remedy: %s", r)
		}
		for _, g := range []*guest{db, quiet, greedy, api, web} {
			if r := book.a.For(t).CLI("status", g.Name); r.Code != 0 {
				t.Errorf("status of %s: %s", g.Name, r)
			}
		}
	})
	t.Run("they_open_nothing_that_a_policy_closes", func(t *testing.T) {
		book.enact(t, map[string]string{"all.yaml": "{name: shut, select: {project: shop}, ingress: [{from: [{service: web}]}], egress: [{to: [{service: web}, {service: db}]}]}"})
		mustKnock(t, slices.Concat(api.to(false, greedy, services...), greedy.to(false, api, services...), web.to(false, greedy, services...),
			greedy.to(false, web, services...), web.to(false, db, services...), api.to(false, db, services...)))
	})
}

// TestPolicyMembership: who a policy is about, and whom it allows, follows the
// containers; an address that is somebody else's now keeps no permission.
func TestPolicyMembership(t *testing.T) {
	t.Parallel()
	e := Start(t)
	e.Network("net", Subnet("198.18.62.0/24"), Subnet("fd00:62::/64"))
	e.Network("back", Subnet("198.18.63.0/24"), Subnet("fd00:63::/64"))
	services := []string{"tcp/80", "udp/53"}
	at := func(n string, host string) ContainerOption { return On(n, "198.18.62."+host, "fd00:62::"+host) }
	guestAt := func(t *testing.T, name, host, service string) *guest {
		t.Helper()
		g := &guest{Container: e.For(t).Run(name, at("net", host), Service("shop", service)), network: "net"}
		g.settle(t, services)
		return g
	}
	db := guestAt(t, "db", "10", "db")
	other := guestAt(t, "other", "30", "web")
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, 2)
	policy := map[string]string{"db.yaml": dbPolicy}
	all := t // what outlives a subtest
	book.enact(t, policy)
	mustKnock(t, other.to(false, db, services...))
	t.Run("a_new_container_with_the_labels_is_allowed_at_once", func(t *testing.T) {
		c := e.For(t).Create("api-1", at("net", "20"), Service("shop", "api"), Doing("connect", "tcp", db.Addr("net", 80), "3s"))
		begin := time.Now()
		c.Start()
		if code := c.Wait(); code != 0 {
			t.Errorf("its first connection: exit code %d\n%s", code, c.Logs())
		}
		t.Logf("ran and connected in %v", time.Since(begin))
	})
	t.Run("its_address_is_worth_nothing_to_the_next_one", func(t *testing.T) {
		c := e.For(t).Create("heir", at("net", "20"), Service("shop", "web"), Doing("connect", "tcp", db.Addr("net", 80), "1s"))
		c.Start()
		if code := c.Wait(); code == 0 {
			t.Error("it got through")
		}
	})
	t.Run("a_restarted_container_keeps_what_it_had", func(t *testing.T) {
		api := guestAt(t, "api-2", "21", "api")
		book.await(t, "it is admitted", AllAdmitted)
		mustKnock(t, slices.Concat(api.to(true, db, services...), other.to(false, db, services...)))
		if err := api.doors.Close(); err != nil {
			t.Error(err)
		}
		api.doors.closers = nil
		api.Restart()
		api.settle(t, services)
		mustKnock(t, slices.Concat(api.to(true, db, services...), other.to(false, db, services...), db.to(true, api, services...)))
	})
	t.Run("a_restarted_target_stays_closed", func(t *testing.T) {
		if err := db.doors.Close(); err != nil {
			t.Error(err)
		}
		db.doors.closers = nil
		db.Restart()
		db.settle(all, services)
		api := guestAt(t, "api-3", "22", "api")
		mustKnock(t, slices.Concat(api.to(true, db, services...), other.to(false, db, services...)))
	})
	t.Run("a_new_target_is_closed_from_its_first_moment", func(t *testing.T) {
		const address = "198.18.62.11:80"
		knocking := make(chan struct{})
		got := make(chan int)
		go func() { // other knocks all the time
			n := 0
			for {
				select {
				case <-knocking:
					got <- n
					return
				default:
				}
				_ = other.at.Do(func() error {
					c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
					if err == nil {
						n++
						_ = c.Close()
					}
					return nil
				})
			}
		}()
		c := e.For(t).Run("db-2", at("net", "11"), Service("shop", "db"), Doing("serve", "tcp", ":80"))
		book.await(t, "it is admitted", func(s control.Status) bool {
			ep, ok := Endpoint(s, c, "net")
			return ok && Whole(ep)
		})
		guestAt(t, "api-4", "23", "api").at.CanReach("tcp", address)
		close(knocking)
		if n := <-got; n > 0 {
			t.Errorf("%d connections got through", n)
		}
	})
	t.Run("disconnect_and_connect", func(t *testing.T) {
		api := &guest{Container: e.For(t).Run("api-5", On("net"), Service("shop", "api")), network: "net"}
		api.settle(t, services)
		before := api.addrs
		mustKnock(t, api.to(true, db, services...))
		api.Disconnect("net")
		book.await(t, "it is gone", gone(api.Container, "net"))
		// Somebody takes its address.
		heir := &guest{Container: e.For(t).Run("heir", On("net", before[0].String(), before[1].String()), Service("shop", "web")), network: "net"}
		heir.settle(t, services)
		book.await(t, "all are admitted", AllAdmitted)
		mustKnock(t, heir.to(false, db, services...))
		api.Connect("net")
		api.doors.closers = nil
		api.settle(t, nil)
		if slices.Equal(api.addrs, before) {
			t.Fatalf("it has the same addresses %v", before)
		}
		book.await(t, "all are admitted", func(s control.Status) bool {
			ep, ok := Endpoint(s, api.Container, "net")
			return ok && Whole(ep)
		})
		mustKnock(t, slices.Concat(api.to(true, db, services...), heir.to(false, db, services...)))
	})
	t.Run("a_second_network_is_another_endpoint", func(t *testing.T) {
		db.Connect("back")
		t.Cleanup(func() { db.Disconnect("back") })
		side := &guest{Container: e.For(t).Run("side", On("back"), Service("shop", "web")), network: "back"}
		side.settle(t, services)
		api := &guest{Container: e.For(t).Run("api-6", On("back"), Service("shop", "api")), network: "back"}
		api.settle(t, services)
		back := &guest{Container: db.Container, network: "back"}
		back.settle(t, nil)
		book.await(t, "all are admitted", AllAdmitted)
		// The servers of db listen on every address by TCP.
		mustKnock(t, slices.Concat(api.to(true, back, "tcp/80"), side.to(false, back, "tcp/80")))
	})
	t.Run("an_agent_that_is_dead_opens_nothing", func(t *testing.T) {
		api := guestAt(t, "api-7", "24", "api")
		mustKnock(t, api.to(true, db, services...))
		book.a.Kill()
		mustKnock(t, slices.Concat(api.to(true, db, services...), other.to(false, db, services...)))
		late := e.For(t).Create("late", at("net", "25"), Service("shop", "api"), Doing("connect", "tcp", db.Addr("net", 80), "1s"))
		if err := late.TryStart(context.Background()); err != nil {
			t.Fatal(err)
		}
		if late.Wait() == 0 {
			t.Error("a container that started meanwhile got through")
		}
		book.a.Start()
		book.enact(t, policy)
		mustKnock(t, slices.Concat(api.to(true, db, services...), other.to(false, db, services...)))
	})
}
