package integration

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
	"netguard/netpolicy/guard"
)

// watching starts `netguard monitor` and returns when it watches.
func watching(t *testing.T, e *Engine, a *Agent, args ...string) *Process {
	t.Helper()
	args = append([]string{"monitor"}, append(args, "--config", a.ConfigFile, "--socket", a.Socket)...)
	p := e.For(t).Spawn(a.Binary, args...)
	p.AwaitLine("watching")
	return p
}

// eventsOf are the events that a monitor has printed until now.
func eventsOf(t *testing.T, p *Process) []control.Event {
	t.Helper()
	var all []control.Event
	for line := range strings.Lines(p.Stdout()) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var e control.Event
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// awaitEvents waits until the events are as wanted.
func awaitEvents(t *testing.T, p *Process, within time.Duration, wanted func([]control.Event) bool) []control.Event {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		all := eventsOf(t, p)
		if wanted(all) {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("not as wanted within %v:\n%s%s", within, p.Stdout(), p.Stderr())
		}
	}
}

// forgeries adds the frames of a container up that are of a kind.
func forgeries(all []control.Event, c *Container, kind string) (n uint64) {
	for _, e := range all {
		if e.Type == control.EventViolation && e.Container == c.Name && e.Kind == kind {
			n += e.Count
		}
	}
	return n
}

// TestMonitor is about who sees what is refused, how soon, and by which name.
func TestMonitor(t *testing.T) {
	t.Parallel()
	engine := Start(t)
	agent := engine.Agent()
	on := func(t *testing.T) (*Engine, *Agent) { return engine.For(t), agent.For(t) }

	t.Run("a_forger_of_ARP_is_named_with_the_address_that_he_forged", func(t *testing.T) {
		e, a := on(t)
		n := e.Network("arp", Subnet("198.18.60.0/24"))
		all := admitted(t, e, a, "arp", nil, nil)
		forger, victim := all[0], all[1]
		gw := gateway(t, e, n, victim.Container)
		p := watching(t, e, a, "-o", "json")
		table := watching(t, e, a)
		others := watching(t, e, a, "-o", "json", victim.Name)
		begin := time.Now()
		if err := forger.port.Send(attack.Ether(attack.Broadcast, forger.MAC, attack.EtherARP,
			attack.ARP(attack.Reply, forger.MAC, gw.IPv4, attack.Broadcast, gw.IPv4))); err != nil {
			t.Fatal(err)
		}
		got := awaitEvents(t, p, 2*time.Second, func(all []control.Event) bool { return len(all) > 0 })
		seen := time.Since(begin)
		line := a.AwaitLog("claimed_ip=" + gw.IPv4.String() + " ")
		logged := time.Since(begin)
		t.Logf("seen after %v, logged after %v", seen, logged)
		if logged > 2*time.Second {
			t.Errorf("it was logged after %v", logged)
		}
		for _, word := range []string{"level=WARN", "container=" + forger.Name + " ", "network=arp ", "kind=arp ", " arp=1 ", " mac=0 ", "claimed_mac=" + text(forger.MAC) + " ", `what="ARP reply"`} {
			if !strings.Contains(line, word) {
				t.Errorf("the log does not say %q: %s", word, line)
			}
		}
		want := control.Event{Time: got[0].Time, Type: "violation", Count: 1, Container: forger.Name, ID: forger.ID, Network: "arp", Veth: forger.Veth("arp"),
			Kind: "arp", ClaimedMAC: text(forger.MAC), ClaimedIP: gw.IPv4.String(), What: "ARP reply"}
		if have, _ := json.Marshal(got[0]); !bytes.Equal(have, must(json.Marshal(want))) {
			t.Errorf("event %s", have)
		}
		if line := table.AwaitLine(forger.Name); !strings.Contains(line, "arp") || !strings.Contains(line, gw.IPv4.String()) || strings.Contains(line, "\x1b") {
			t.Errorf("table: %s", line)
		}
		if out := others.Stop(); out.Stdout != "" || !out.OK() {
			t.Errorf("about another container: %s", out)
		}
	})
	t.Run("every_kind_is_shown_with_what_a_frame_claimed", func(t *testing.T) {
		e, a := on(t)
		n := e.Network("kinds", Subnet("198.18.64.0/24"), Subnet("fd00:64::/64"))
		all := admitted(t, e, a, "kinds", nil, nil, nil)
		attacker, victim, third := all[0], all[1], all[2]
		s := attack.Scene{Attacker: attacker.party(), Victim: victim.party(), Third: third.party(), Gateway: gateway(t, e, n, victim.Container)}
		p := watching(t, e, a, "-o", "json", attacker.Name)
		kinds := map[string]uint64{}
		for _, at := range attack.All {
			if kinds[string(at.Kind)] == 0 { // the first of each kind: it is surely shown
				if err := attacker.port.Send(at.Frame(s)); err != nil {
					t.Fatal(err)
				}
				kinds[string(at.Kind)]++
			}
		}
		got := awaitEvents(t, p, 3*time.Second, func(all []control.Event) bool { return len(all) >= len(kinds) })
		if len(got) != len(kinds) || len(kinds) != 6 {
			t.Errorf("%d events of %d kinds", len(got), len(kinds))
		}
		for _, ev := range got {
			t.Logf("%s: %s at %s, %s", ev.Kind, ev.ClaimedIP, ev.ClaimedMAC, ev.What)
			if kinds[ev.Kind] != ev.Count || ev.What == "" || ev.ClaimedMAC == "" || ev.ClaimedIP == "" && ev.Kind != "ethertype" {
				t.Errorf("%+v", ev)
			}
		}
	})
	t.Run("a_flood_is_few_lines_and_exact_counts", func(t *testing.T) {
		e, a := on(t)
		e.Network("flooded", Subnet("198.18.61.0/24"))
		all := admitted(t, e, a, "flooded", nil, nil)
		forger, victim := all[0], all[1]
		p := watching(t, e, a, "-o", "json")
		before := rss(t, a)
		const frames = 200000
		begin := time.Now()
		forger.Inside().SendFrame(forger.Interface("flooded"), attack.Ether(attack.Broadcast, forger.MAC, attack.EtherARP,
			attack.ARP(attack.Request, forger.MAC, victim.IPv4, attack.MAC{}, victim.IPv4)), frames)
		took := time.Since(begin)
		got := awaitEvents(t, p, 10*time.Second, func(all []control.Event) bool { return forgeries(all, forger.Container, "arp") >= frames })
		if n := forgeries(got, forger.Container, "arp"); n != frames {
			t.Errorf("%d of %d frames", n, frames)
		}
		if v := violations(t, a, forger)[0]; v != (control.Violations{ARP: frames}) {
			t.Errorf("status: %+v", v)
		}
		if most := int(took/(700*time.Millisecond)) + 4; len(got) > most {
			t.Errorf("%d events in %v", len(got), took)
		}
		lines := strings.Count(a.Log(), "container="+forger.Name+" network=flooded veth="+forger.Veth("flooded")+" kind=")
		if most := int(took/(10*time.Second)) + 2; lines == 0 || lines > most {
			t.Errorf("%d lines in the log in %v", lines, took)
		}
		after := rss(t, a)
		t.Logf("%d frames in %v: %d events, %d lines, memory %d and %d KiB", frames, took, len(got), lines, before>>10, after>>10)
		if after > before+16<<20 {
			t.Errorf("the agent grew from %d to %d bytes", before, after)
		}
	})
	t.Run("a_denied_connection_has_both_names", func(t *testing.T) {
		e, a := on(t)
		e.Network("shop", Subnet("198.18.62.0/24"), Subnet("fd00:62::/64"))
		a.WritePolicy("db.yaml", "name: only-api\nselect: {container: shop-db}\ningress: [{from: [{container: shop-api}]}]\n")
		db := e.Run("shop-db", On("shop"), Doing("serve", "tcp", ":5432"))
		web := e.Run("shop-web", On("shop"))
		a.AwaitStatus("db is closed", func(s control.Status) bool {
			d, ok := Endpoint(s, db, "shop")
			w, there := Endpoint(s, web, "shop")
			return ok && there && Whole(d) && Whole(w) && len(d.Policy.Ingress) == 1
		})
		p := watching(t, e, a, "-o", "json", "shop-web")
		begin := time.Now()
		web.Inside().CannotReach("tcp", netip.AddrPortFrom(db.IP("shop"), 5432).String())
		got := awaitEvents(t, p, 2*time.Second, func(all []control.Event) bool { return len(all) > 0 })
		t.Logf("seen within %v", time.Since(begin))
		w := got[0]
		want := control.Event{Time: w.Time, Type: "denied", Count: w.Count, Container: "shop-db", ID: db.ID, Network: "shop", Veth: db.Veth("shop"),
			Direction: "ingress", Service: "tcp/5432", Policies: []string{"only-api"},
			From: &control.Peer{Container: "shop-web", Address: web.IP("shop").String()}, To: &control.Peer{Container: "shop-db", Address: db.IP("shop").String()}}
		if have, _ := json.Marshal(w); !bytes.Equal(have, must(json.Marshal(want))) {
			t.Errorf("event %s, want %s", have, must(json.Marshal(want)))
		}
	})
	t.Run("nothing_is_changed_by_listening", func(t *testing.T) {
		e, _ := on(t)
		if got := e.Output("sh", "-c", "cat /proc/sys/net/netfilter/nf_log/*"); strings.Contains(got, "nfnetlink") {
			t.Errorf("the host's loggers: %s", got)
		}
		if got := e.Output("cat", "/proc/net/netfilter/nfnetlink_log"); strings.Count(got, "\n") != 2 || !strings.Contains(got, strconv.Itoa(guard.SampleGroup)) {
			t.Errorf("listeners: %s", got)
		}
	})
	// The last one: the agent that it starts ends with it.
	t.Run("it_goes_on_when_the_agent_restarts_and_ends_well", func(t *testing.T) {
		e, a := on(t)
		e.Network("again", Subnet("198.18.63.0/24"))
		all := admitted(t, e, a, "again", nil, nil)
		forger, victim := all[0], all[1]
		p := watching(t, e, a, "-o", "json", forger.Name)
		a.Restart()
		p.AwaitLine("trying again")
		for deadline := time.Now().Add(arrives); strings.Count(p.Stderr(), "watching") < 2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it does not watch again: %s", p.Stderr())
			}
		}
		forged := attack.Ether(victim.MAC, attack.Nobody, attack.EtherIPv4, udp4(forger, victim, ""))
		if err := forger.port.Send(forged, forged, forged); err != nil {
			t.Fatal(err)
		}
		got := awaitEvents(t, p, arrives, func(all []control.Event) bool { return forgeries(all, forger.Container, "mac") == 3 })
		if got[0].ClaimedMAC != text(attack.Nobody) {
			t.Errorf("%+v", got[0])
		}
		if r := p.Stop(); !r.OK() {
			t.Error(r)
		}
	})
}

func text(m attack.MAC) string { return net.HardwareAddr(m[:]).String() }

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
