package integration

import (
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// TestMonitorMode goes from enforcing to watching and back while connections run.
func TestMonitorMode(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6())
	e.Network("net", Subnet("198.18.65.0/24"), Subnet("fd00:65::/64"))
	a := e.Agent(Policy("db.yaml", "name: only-web\nselect: {container: db}\ningress: [{from: [{container: web}], ports: [tcp/80]}]\n"))
	db := welcome(t, e, "db", "net", []string{"tcp/80", "tcp/90", "udp/53"})
	web := welcome(t, e, "web", "net", []string{"tcp/80"}, Label(egressRate, "8mbit"), Label("netguard.guard.connections", "1000"))
	other := welcome(t, e, "other", "net", nil)
	inForce := func(mode string) time.Time {
		t.Helper()
		text := map[string]string{control.ModeEnforce: "policies are in force", control.ModeMonitor: "policies are watched"}[mode]
		a.AwaitLog(text)
		since := time.Now()
		s := a.AwaitStatus("all is in force, mode "+mode, func(s control.Status) bool {
			d, ok := Endpoint(s, db.Container, "net")
			w, there := Endpoint(s, web.Container, "net")
			return ok && there && s.Mode == mode && s.InSync && Whole(d) && len(d.Policy.Ingress) == 1 && w.Egress.RateBPS == 8e6
		})
		drops := e.Output("sh", "-c", "{ iptables-save; ip6tables-save; } | grep '^-A NG' | grep -E -c -e '-j (DROP|REJECT)'; nft list tables | grep netguard | while read t; do nft list $t; done | grep -w -c drop; true")
		if (drops == "0\n0\n") != (mode == control.ModeMonitor) {
			t.Errorf("mode %s: rules that drop, of iptables and nft: %q", mode, drops)
		}
		if !strings.Contains(a.CLI("status").Stdout, "mode "+s.Mode) {
			t.Errorf("status does not begin with the mode %s", mode)
		}
		return since
	}
	inForce(control.ModeEnforce)
	allowed := []*call{place(t, web, db, "tcp/80", db.Addr("net", 80)), place(t, web, db, "tcp/80", db.Addr6("net", 80))}
	denied := []*call{
		place(t, other, db, "tcp/80", db.Addr("net", 80)), place(t, other, db, "udp/53", db.Addr6("net", 53)),
		place(t, web, db, "tcp/90", db.Addr6("net", 90)), place(t, web, db, "udp/53", db.Addr("net", 53)),
	}
	are := func(yes bool, calls ...[]*call) map[*call]bool {
		all := map[*call]bool{}
		for _, list := range calls {
			for _, c := range list {
				all[c] = yes
			}
		}
		return all
	}
	refused := func(when string, since time.Time) {
		t.Helper()
		time.Sleep(time.Until(since.Add(stopsWithin + restsFor))) // nothing must come in this time
		for _, c := range denied {
			if last, _ := c.answers(); last.After(since.Add(stopsWithin)) {
				t.Errorf("%s: %s is denied, and was answered %v after the policies were in force", when, c, last.Sub(since))
			} else if !last.IsZero() {
				t.Logf("%s: %s was answered until %v after", when, c, last.Sub(since))
			}
		}
	}
	settle(t, allowed, are(true, allowed), nil, "at the start")
	refused("at the start", time.Now())
	// On a network of their own: no policy is about it, so frames stay as they are.
	e.Network("front", Subnet("198.18.66.0/24"))
	pair := admitted(t, e, a, "front", nil, nil)
	forger, ask := pair[0], pair[1]
	forged := attack.Ether(attack.Broadcast, forger.MAC, attack.EtherARP, attack.ARP(attack.Request, forger.MAC, ask.IPv4, attack.MAC{}, ask.IPv4))
	if forger.delivers(t, ask, forged) {
		t.Error("at the start a forged frame passes")
	}
	counts := func() (uint64, uint64) {
		s := a.Status()
		d, _ := Endpoint(s, db.Container, "net")
		f, _ := Endpoint(s, forger.Container, "front")
		return d.Denied, f.Violations.ARP
	}
	for _, round := range []string{"the first time", "the second time"} {
		packets, frames := counts()
		if frames == 0 || packets == 0 {
			t.Errorf("%s: %d packets and %d frames were counted", round, packets, frames)
		}
		a.RestartWith("--mode", "monitor")
		inForce(control.ModeMonitor)
		events := watching(t, e, a, "-o", "json", "db")
		table := watching(t, e, a)
		settle(t, append(allowed, denied...), are(true, allowed, denied), are(false, denied), "in monitor mode "+round)
		other.Inside().CanReach("tcp", db.Addr("net", 90))
		if !forger.delivers(t, ask, forged) {
			t.Errorf("in monitor mode %s a forged frame does not pass", round)
		}
		got := awaitEvents(t, events, arrives, func(all []control.Event) bool {
			for _, e := range all {
				if e.Type == control.EventDenied && e.From.Container == "other" && e.To.Container == "db" && e.Service == "tcp/90" {
					return true
				}
			}
			return false
		})
		for _, e := range got {
			if e.Mode != control.ModeMonitor {
				t.Errorf("%s: event %+v", round, e)
			}
		}
		if line := table.AwaitLine("-> db ("); !strings.Contains(line, "would be denied by ingress (only-web)") {
			t.Errorf("%s: %s", round, line)
		}
		if line := a.AwaitLog("connection would be denied"); !strings.Contains(line, "container=db ") {
			t.Errorf("%s: log: %s", round, line)
		}
		a.AwaitStatus("it is counted", func(s control.Status) bool {
			d, _ := Endpoint(s, db.Container, "net")
			f, _ := Endpoint(s, forger.Container, "front")
			return d.Denied > packets && f.Violations.ARP > 0
		})
		if r := a.CLI("status"); !r.OK() || !strings.Contains(r.Stdout, "would have denied: ") {
			t.Errorf("%s: %s", round, r)
		}
		if _, received := (way{"egress", web.Container, other.Container, other.IP("net")}).flow("udp", 1500*time.Millisecond); received > 8e6*1.05 {
			t.Errorf("%s: a limit of 8 Mbit/s lets %.0f bit/s through", round, received)
		}
		_, broke := allowed[0].answers()
		a.RestartWith("--mode", "enforce")
		refused("enforcing "+round, inForce(control.ModeEnforce))
		settle(t, allowed, are(true, allowed), nil, "enforcing "+round)
		if broke > 0 {
			t.Errorf("%s: an allowed connection broke %d times", round, broke)
		}
		if forger.delivers(t, ask, forged) {
			t.Errorf("enforcing %s a forged frame passes", round)
		}
	}
	for _, c := range allowed {
		if _, broke := c.answers(); broke > 0 {
			t.Errorf("%s broke %d times", c, broke)
		}
	}

	a.RestartWith("--mode", "monitor")
	inForce(control.ModeMonitor)
	a.WritePolicy("bad.yaml", "name: bad\nselect: {container: web}\ningress: [{from: [{container: db}], ports: [tcp/0]}]\n")
	wrong := welcome(t, e, "wrong", "net", nil, Label(egressRate, "fast"))
	isolates := func(s control.Status) bool {
		w, ok := Endpoint(s, wrong.Container, "net")
		return ok && w.State == control.Quarantined && strings.HasPrefix(w.Reason, "it would be closed: ") &&
			strings.Contains(strings.Join(s.Findings, "\n"), "would be isolated")
	}
	a.AwaitStatus("faults are reported", isolates)
	wrong.Inside().CanReach("tcp", web.Addr("net", 80))
	a.AwaitStatus("what admission would refuse is counted", func(s control.Status) bool {
		w, ok := Endpoint(s, wrong.Container, "net")
		return ok && w.Withheld.Sent > 0
	})
	a.Stop()
	late := e.Run("late", On("net"))
	late.Inside().CanReach("tcp", web.Addr("net", 80))
	a.Start()
	a.AwaitStatus("so it is of who started without an agent", func(s control.Status) bool {
		l, ok := Endpoint(s, late, "net")
		return ok && Whole(l) && l.Withheld.Sent > 0
	})
	if r := a.CLI("status", "wrong"); r.Code != 1 {
		t.Errorf("status of one whose label is wrong: %s", r)
	}
	a.RestartWith("--mode", "enforce")
	a.AwaitStatus("faults isolate", func(s control.Status) bool {
		w, ok := Endpoint(s, wrong.Container, "net")
		return ok && s.InSync && w.State == control.Quarantined && !strings.Contains(w.Reason, "would")
	})
	wrong.Inside().CannotReach("tcp", web.Addr("net", 80))
	other.Inside().CannotReach("tcp", web.Addr("net", 80))
}
