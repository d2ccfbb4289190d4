package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	. "netguard/integration/harness"
)

// damage is what somebody else does to netguard's work.
type damage struct {
	name string
	// do is a command on the host. $bridge is the network's bridge, $mallory, $db,
	// $third, $slow and $small are veths, $MAC and $ADDR db's and $OTHER third's,
	// $SET the set of those who are isolated, $OLD the rules of old.
	do string
	// calls is what is done instead, by the engine.
	calls func(*doorway)
	// polled: the kernel tells nobody.
	polled bool
	// opens are the doors that it opens: a case that opens none proves nothing of
	// them. Others are counted, too.
	opens string
	// never: it opens none, not for a moment.
	never bool
	// silent: it is nothing to be logged.
	silent bool
	// until is a command that is true when it is repaired; without, that is when
	// all is as it was.
	until string
}

const (
	// told is how long it may take where the kernel tells, on a machine that is
	// busy with other things.
	told = 2 * time.Second
	// polled is how long it may take elsewhere.
	polled = 12 * time.Second
	// seen is how long it may take until all is seen to be as before, where the
	// kernel tells: tools take their time, but looks at everything are rarer.
	seen = 5 * time.Second
)

// ofRules are about iptables and ipset.
var ofRules = []damage{
	// There is another for what begins in FORWARD, ahead of all.
	{name: "jump deleted", never: true, do: "iptables -D DOCKER-USER -j NG-FORWARD"},
	{name: "DOCKER-USER flushed", do: "iptables -F DOCKER-USER"},
	{name: "both jumps deleted", do: "iptables -D DOCKER-USER -j NG-FORWARD; iptables -D FORWARD -m conntrack --ctstate NEW -j NG-FORWARD", opens: byPolicy},
	{name: "jump of IPv6 deleted", do: jumpOfIPv6, opens: byIPv6},
	// Docker that writes ip6tables drops what FORWARD does not accept.
	{name: "IPv6 flushed", do: "ip6tables -P FORWARD ACCEPT; ip6tables -F", opens: byIPv6},
	{name: "jump for what the host receives deleted", do: "iptables -D INPUT ! -i lo -j NG-INPUT", opens: byInput},
	{name: "jump for what the host sends deleted", do: "iptables -D OUTPUT -j NG-OUTPUT", opens: byOutput},
	{name: "own chain flushed", do: "iptables -F NG-FORWARD", opens: byPolicy},
	{name: "ACCEPT before the jump", never: true, do: overtake("-m conntrack --ctstate NEW -j NG-FORWARD"), until: accepted},
	// As Docker does it when it makes a network.
	{name: "ACCEPT before the jump, Docker's own before the other", do: overtake("-j DOCKER-USER"), opens: byPolicy, until: accepted},
	{name: "docker network create", never: true, silent: true, calls: func(d *doorway) {
		for i := range 5 {
			d.e.Network(fmt.Sprintf("passing%d", i)).Remove()
		}
	}},
	{name: "dockerd killed and started", never: true, silent: true, calls: func(d *doorway) { d.e.KillDaemon(); d.e.StartDaemon() }},
	// Docker's own FORWARD DROP stays, and drops.
	{name: "iptables flushed", do: "iptables -F", opens: byInput + byOutput},
	{name: "old rules restored", do: "iptables-restore < $OLD", opens: byPolicy},
	{name: "iptables flushed, with FORWARD ACCEPT", do: "iptables -P FORWARD ACCEPT; iptables -F", opens: byPolicy + byInput + byOutput},
	{name: "sets destroyed after it", do: "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT; for i in $(seq 100); do iptables -F; ip6tables -F; ipset destroy 2>/dev/null && exit; done; exit 1", opens: byPolicy + byIPv6 + byInput + byOutput},
}

// jumpOfIPv6 deletes what leads IPv6 to netguard's rules. Where Docker writes ip6tables
// that are two jumps, as for IPv4.
const jumpOfIPv6 = `if ip6tables -S DOCKER-USER >/dev/null 2>&1
		then ip6tables -D DOCKER-USER -j NG-FORWARD; ip6tables -D FORWARD -m conntrack --ctstate NEW -j NG-FORWARD
		else ip6tables -D FORWARD -j NG-FORWARD; fi`

// accepted: the jump is first again.
const accepted = "iptables -S DOCKER-USER | sed -n 2p | grep -q NG-FORWARD"

// overtake puts a rule that accepts before the jump in DOCKER-USER, and one of the
// rules of FORWARD first there, all at once.
func overtake(first string) string {
	return fmt.Sprintf(`printf '*filter\n-D FORWARD %[1]s\n-I FORWARD %[1]s\n-I DOCKER-USER -j ACCEPT\nCOMMIT\n' | iptables-restore --noflush`, first)
}

// replaced has the last rule of all that is refused accept, under its own comment.
func replaced(family string) string {
	return fmt.Sprintf(`h=$(nft -a list chain %[1]s netguard refuse | sed -n 's/.*comment "enforce" # handle //p')
		nft "replace rule %[1]s netguard refuse handle $h accept comment \"enforce\""`, family)
}

// ofSets tell nobody, with either backend.
var ofSets = []damage{
	{name: "one set flushed", do: "ipset flush $SET", polled: true, opens: byPolicy},
	{name: "one member deleted", do: "ipset del $SET $ADDR", polled: true, opens: byPolicy},
	{name: "a member exchanged", do: "ipset del $SET $ADDR; ipset add $SET 198.18.50.99", polled: true, opens: byPolicy},
}

// ofLayer2 are about the guard and bridges. Most of it is repaired between two
// packets of a stream.
var ofLayer2 = []damage{
	{name: "guard's table deleted", do: "nft delete table bridge netguard"},
	{name: "guard's rules flushed", do: "nft flush table bridge netguard"},
	{name: "guard's chain flushed", do: "nft flush chain bridge netguard prerouting"},
	{name: "guard's ports flushed", do: "nft flush set bridge netguard ports"},
	{name: "an address given", do: "nft add element bridge netguard v4 \"{ $mallory . $MALLORY . $OTHER }\""},
	// What one layer of the guard loses the other still refuses.
	{name: "port unlocked and learning", do: "bridge link set dev $mallory locked off learning on flood on"},
	{name: "FDB entry deleted", do: "bridge fdb del $MAC dev $db master"},
	{name: "FDB entry moved", do: "bridge fdb replace $MAC dev $mallory master static"},
	{name: "neighbour replaced", do: "ip neigh replace $ADDR lladdr 02:00:00:00:00:01 dev $bridge nud stale"},
	{name: "neighbours flushed", do: "ip neigh flush dev $bridge nud permanent"},
	{name: "bridge hands nothing over", do: "ip link set dev $bridge type bridge nf_call_iptables 0 nf_call_ip6tables 0"},
	{name: "nft flush ruleset", do: "nft flush ruleset", opens: byPolicy + byIPv6 + byInput + byOutput},
	{name: "bridge has a new address", do: "ip addr add 198.18.50.77/24 dev $bridge", silent: true, until: "nft list set bridge netguard own4 | grep -q 198.18.50.77"},
	// From here on nothing comes in at the door to the host: containers know its old MAC.
	{name: "bridge has a new MAC", do: "ip link set dev $bridge address 02:00:00:00:00:77", silent: true, until: "nft list table bridge netguard | grep -q 02:00:00:00:00:77"},
	{name: "limits of connections deleted", do: "nft delete table inet netguard"},
	{name: "guard's rule replaced", do: replaced("bridge")},
	{name: "limits' rule replaced", do: replaced("inet")},
}

// ofLimits are about bandwidth.
var ofLimits = []damage{
	{name: "root qdisc deleted", do: "tc qdisc del dev $slow root"},
	{name: "class made wide", do: "tc class change dev $slow classid 4e47:1 htb rate 1gbit ceil 1gbit"}, // those below it are as before
	{name: "ingress qdisc deleted", do: "tc qdisc del dev $small ingress"},
	{name: "filter deleted", do: "tc filter del dev $small ingress"},
	{name: "IFB deleted", do: "ip link del $(ip -o link show type ifb | grep -o 'ngifb[0-9a-f]*')", until: "ip -o link show type ifb | grep -q ngifb"}, // until it is back nothing is sent
}

// somebody is what the log says of drift.
const somebody = "changed by somebody else"

// outcome is how long doors were open, and when all was as before, after the damage
// was done.
type outcome struct {
	open     map[string]time.Duration
	repaired time.Duration
}

func (o outcome) String() string {
	var s []string
	for _, name := range slices.Sorted(maps.Keys(o.open)) {
		if o.open[name] > 0 {
			s = append(s, fmt.Sprintf("%s open for %v", name, o.open[name].Round(time.Millisecond)))
		}
	}
	if len(s) == 0 {
		s = []string{"nothing was open"}
	}
	return fmt.Sprintf("%s; all as before after %v", strings.Join(s, ", "), o.repaired.Round(time.Millisecond))
}

func (d *doorway) script(text string) string {
	set := strings.Fields(d.e.Output("sh", "-c", "ipset save | grep -E '^add ng4-ii-\\S+ "+d.db.IPv4.String()+"'"))[1]
	return fmt.Sprintf("bridge=%s mallory=%s db=%s third=%s slow=%s small=%s MAC=%s ADDR=%s OTHER=%s SET=%s OLD=%s MALLORY=%s\n%s", d.net.Bridge,
		d.mallory.Veth("net"), d.db.Veth("net"), d.third.Veth("net"), d.slow.Veth("net"), d.small.Veth("net"),
		hw(d.db.MAC), d.db.IPv4, d.third.IPv4, set, d.old(), hw(d.mallory.MAC), text)
}

// suffer lets somebody do damage, and watches the doors until all is repaired.
func (d *doorway) suffer(t testing.TB, what damage) outcome {
	t.Helper()
	e := d.e.For(t)
	d.settle()
	before, logged := d.state(), strings.Count(d.a.Log(), somebody)
	within := told
	if what.polled {
		within = polled
	}
	script, until := d.script(what.do), d.script(what.until)
	if what.calls != nil {
		what.calls(d)
	} else {
		// What a tool says of what is not there is the case's business.
		e.Output("sh", "-c", script)
	}
	done := time.Now()
	o := outcome{open: map[string]time.Duration{}}
	repaired := func() bool {
		if what.until != "" {
			return e.Try("sh", "-c", until).OK()
		}
		return d.state() == before
	}
	for !repaired() {
		if time.Since(done) > within+polled {
			t.Fatalf("%s: not repaired after %v:\n%s\nwas:\n%s\nthe agent's log:\n%s", what.name, time.Since(done), d.state(), before, d.a.Log())
		}
		time.Sleep(20 * time.Millisecond) // tools have to be asked
	}
	o.repaired = time.Since(done)
	for {
		wait := false
		for name, door := range d.doors {
			total, last := door.open()
			o.open[name] = total
			wait = wait || time.Since(last) < quiet
		}
		if !wait && time.Since(done) > quiet {
			break
		}
		if time.Since(done) > within+polled {
			t.Fatalf("%s: still open after %v: %v\nthe agent's log:\n%s", what.name, time.Since(done), o, d.a.Log())
		}
		time.Sleep(20 * time.Millisecond) // nothing tells of what does not come
	}
	t.Logf("%s: %v", what.name, o)
	for !what.silent && strings.Count(d.a.Log(), somebody) == logged {
		if time.Since(done) > within+polled {
			t.Fatalf("%s: the log says nothing of it:\n%s", what.name, d.a.Log())
		}
		time.Sleep(20 * time.Millisecond) // the log has no event for what is not there yet
	}
	if !what.polled && o.repaired > seen {
		t.Errorf("%s: repaired after %v, more than %v", what.name, o.repaired, seen)
	}
	for name, open := range o.open {
		if open > within {
			t.Errorf("%s: the door that is closed by the %s was open for %v, more than %v", what.name, name, open, within)
		}
		if what.never && open > 0 {
			t.Errorf("%s: the door that is closed by the %s was open for %v: it should never be\nthe agent's log:\n%s", what.name, name, open, d.a.Log())
		}
	}
	return o
}

// unseen names a door that the damage opens, and that no packet passed.
func (o outcome) unseen(what damage) string {
	for name, open := range o.open {
		if strings.Contains(what.opens, name) && open == 0 {
			return name
		}
	}
	return ""
}

// proof does damage until a packet passed each door that it opens: on a busy machine the repair
// may come before the next packet.
func (d *doorway) proof(t testing.TB, what damage) outcome {
	t.Helper()
	unseen := ""
	for range 5 {
		o := d.suffer(t, what)
		if unseen = o.unseen(what); unseen == "" {
			return o
		}
	}
	t.Fatalf("%s: it opened no door that is closed by the %s, and so proves nothing", what.name, unseen)
	return outcome{}
}

func (d *doorway) each(t *testing.T, all []damage) {
	for _, what := range all {
		t.Run(strings.ReplaceAll(what.name, " ", "_"), func(t *testing.T) { d.proof(t, what) })
	}
}

// Somebody else changes what netguard keeps in the kernel: it comes back by itself,
// and what was forbidden passes no longer than that takes.
func TestDriftDoors(t *testing.T) {
	t.Run("nftables", func(t *testing.T) {
		t.Parallel()
		d := newDoorway(t)
		d.each(t, slices.Concat(ofLimits, ofSets[:1], ofRules, ofLayer2))
	})
	t.Run("legacy", func(t *testing.T) {
		t.Parallel()
		d := newDoorway(t, WithLegacyIptables())
		for _, what := range withLegacy(ofRules) {
			if what.name == "DOCKER-USER flushed" || what.name == "docker network create" || strings.Contains(what.name, "ACCEPT") {
				d.each(t, []damage{what})
			}
		}
	})
}

// withLegacy says what is otherwise with the legacy backend.
func withLegacy(all []damage) []damage {
	all = slices.Clone(all)
	for i := range all {
		all[i].polled = true
		if all[i].name == "nft flush ruleset" {
			all[i].opens = "" // there are no rules of iptables there
		}
	}
	return all
}

func TestSoakDriftDoors(t *testing.T) {
	soaking(t)
	t.Run("legacy", func(t *testing.T) {
		newDoorway(t, WithLegacyIptables()).each(t, withLegacy(slices.Concat(ofLimits, ofSets, ofRules, ofLayer2)))
	})
	t.Run("nftables", func(t *testing.T) {
		d := newDoorway(t)
		d.each(t, slices.Concat(ofSets, ofRules))
	})
}
