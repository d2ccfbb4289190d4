package integration

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// statusInFlood is how long status may take while one container floods, half of the times.
const statusInFlood = 100 * time.Millisecond

// logged is when the agent wrote a line.
func logged(t *testing.T, line string) time.Time {
	t.Helper()
	text, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return at
}

// TestGuardTells is about who learns of an attack, and how soon.
func TestGuardTells(t *testing.T) {
	t.Parallel()
	engine := Start(t)
	agent := engine.Agent()
	on := func(t *testing.T) (*Engine, *Agent) { return engine.For(t), agent.For(t) }

	t.Run("an_alert_names_container_network_and_kind", func(t *testing.T) {
		e, a := on(t)
		n := e.Network("alerts", Subnet("198.18.35.0/24"), Subnet("fd00:35::/64"))
		kinds := []attack.Kind{attack.OfMAC, attack.OfARP, attack.OfIP, attack.OfND, attack.OfDHCP, attack.OfEthertype, attack.OfStorm}
		all := admitted(t, e, a, "alerts", nil, nil, nil, nil, nil, nil, nil, nil)
		victim := all[len(kinds)]
		begin := time.Now()
		sent := make([]time.Time, len(kinds))
		for i, k := range kinds {
			s := attack.Scene{Attacker: all[i].party(), Victim: victim.party(), Third: all[(i+1)%len(kinds)].party(), Gateway: gateway(t, e, n, victim.Container)}
			count, frame := 3, announcing(all[i].MAC, all[i].IPv4)
			if k == attack.OfStorm {
				count = 4500
			} else {
				for _, at := range attack.All {
					if at.Kind == k {
						frame = at.Frame(s)
						break
					}
				}
			}
			sent[i] = time.Now()
			all[i].deliver(t, victim, frame, count)
		}
		quickest := time.Hour
		for i, k := range kinds {
			line := a.AwaitLog("container=" + all[i].Name + " ")
			for !strings.Contains(line, "must not") {
				// Its own line, not one about its admission.
				line = lineWith(a.Log(), "must not", "container="+all[i].Name+" ")
				if time.Since(begin) > arrives {
					t.Fatalf("no alert about %s:\n%s", all[i].Name, a.Log())
				}
				time.Sleep(10 * time.Millisecond)
			}
			quickest = min(quickest, logged(t, line).Sub(sent[i]))
			for _, word := range []string{"level=WARN", "network=alerts", "veth=" + all[i].Veth("alerts"), " " + string(k) + "="} {
				if !strings.Contains(line, word) {
					t.Errorf("the alert does not say %q: %s", word, line)
				}
			}
			for _, other := range kinds {
				if none := strings.Contains(line+" ", fmt.Sprintf(" %s=0 ", other)); none == (other == k) {
					t.Errorf("the alert about %s has the wrong kind: %s", k, line)
				}
			}
		}
		took := time.Since(begin)
		t.Logf("the last alert was there %v after the first frame, the quickest after %v", took, quickest)
		if quickest > time.Second {
			t.Errorf("no alert came within a second: the quickest took %v", quickest)
		}
		if took > 3*time.Second {
			t.Errorf("alerts took %v", took)
		}
	})
	t.Run("a_restart_is_no_news_and_counts_outlive_it_and_a_change_of_settings", func(t *testing.T) {
		e, a := on(t)
		e.Network("quiet", Subnet("198.18.37.0/24"))
		all := admitted(t, e, a, "quiet", nil, nil)
		from, to := all[0], all[1]
		attack3 := func() {
			from.deliver(t, to, attack.Ether(to.MAC, attack.Nobody, attack.EtherIPv4, udp4(from, to, "")), 3)
		}
		attack3()
		a.AwaitLog(`must not" container=` + from.Name + " ")
		a.WriteConfig("guard: {storm: 900}\n")
		a.AwaitLog("configuration read again")
		agent.Restart()
		a.AwaitStatus("all are admitted", AllAdmitted)
		attack3()
		var line string
		a.AwaitStatus("what is new is told", func(control.Status) bool {
			line = lineWith(a.Log(), "must not", "container="+from.Name+" ")
			return line != ""
		})
		if !strings.Contains(line, " mac=3 ") {
			t.Errorf("not what is new: %s", line)
		}
		if got := violations(t, a, from, to); got[0].MAC != 6 || got[1] != (control.Violations{}) {
			t.Errorf("counted %+v", got)
		}
		a.WriteConfig("")
	})
	t.Run("status_answers_and_counts_exactly_during_a_flood_of_forged_addresses", func(t *testing.T) {
		e, a := on(t)
		n := e.Network("flood", Subnet("198.18.36.0/24"))
		all := admitted(t, e, a, "flood", nil, nil)
		from, to := all[0], all[1]
		rules := func() int { return len(e.Output("nft", "list", "table", "bridge", "netguard")) }
		tableBefore, rssBefore := rules(), rss(t, a)
		frame := attack.Ether(to.MAC, attack.Nobody, attack.EtherIPv4, udp4(from, to, ""))
		last, frames := uint64(0), uint64(0)
		oneOf(t, busyTries, func() error {
			flood := from.Inside().SpawnProbe("frame", "flood", from.Interface("flood"), hex.EncodeToString(frame), "3s")
			var took []time.Duration
			for running := true; running; {
				begin := time.Now()
				now := violations(t, a, from)[0].MAC
				took = append(took, time.Since(begin))
				if now < last {
					t.Errorf("%d violations after %d", now, last)
				}
				last = now
				select {
				case <-flood.Ended():
					running = false
				default:
				}
			}
			var sent struct{ Sent uint64 }
			if err := flood.Wait().Into(&sent); err != nil || sent.Sent < 10000 {
				t.Fatalf("no flood: %+v, %v", sent, err)
			}
			frames += sent.Sent
			if got := violations(t, a, from, to); got[0] != (control.Violations{MAC: frames}) || got[1] != (control.Violations{}) {
				t.Errorf("counted %+v of %d", got, frames)
			}
			slices.Sort(took)
			half, slowest := took[len(took)/2], took[len(took)-1]
			t.Logf("%d frames in 3 s, %d answers, half of them within %v, the slowest after %v", sent.Sent, len(took), half, slowest)
			if len(took) < 5 || half > statusInFlood {
				return fmt.Errorf("status answered %d times in 3 s, half of them within %v", len(took), half)
			}
			return nil
		})
		if got := strings.Count(e.Output("bridge", "fdb", "show", "br", n.Bridge), "\n"); got > 50 {
			t.Errorf("the bridge has learned: %d entries", got)
		}
		if after := rules(); after > tableBefore+1000 {
			t.Errorf("the table grew from %d to %d bytes", tableBefore, after)
		}
		if after := rss(t, a); after > rssBefore+32<<20 {
			t.Errorf("the agent grew from %d to %d bytes", rssBefore, after)
		}
	})
}

func lineWith(text string, words ...string) string {
lines:
	for line := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return strings.TrimSpace(line)
	}
	return ""
}
