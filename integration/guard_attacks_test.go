package integration

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// TestGuard has a container attack its neighbours and the host, without netguard
// and with it. What is honest goes on after each attack, and each is counted for
// the container that it came from, and nobody else.
func TestGuard(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	checks := honest(t, s)
	effects := effects(t, s)
	stillHonest(t, checks)
	t.Run("without_netguard", func(t *testing.T) { s.attacksSucceed(t, effects) })
	s.recover(t)

	a := s.e.Agent()
	a.AwaitStatus("all are admitted", AllAdmitted)
	stillHonest(t, checks)
	t.Run("with_netguard", func(t *testing.T) { s.attacksFail(t, a, effects, checks) })
	if r := a.CLI("status"); !r.OK() {
		t.Errorf("status after all that: %s", r)
	}
}

func (s *stage) attacksSucceed(t *testing.T, effects []effect) {
	// Reports of groups would go to routers of multicast alone.
	snooping := func(on string) { s.e.Output("ip", "link", "set", s.net.Bridge, "type", "bridge", "mcast_snooping", on) }
	snooping("0")
	for _, at := range attack.All {
		t.Run(at.Name+"_arrives", func(t *testing.T) {
			s.learn(t)
			if !s.attacker.delivers(t, s.victim, at.Frame(s.scene)) {
				t.Error("the attack fails by itself: it proves nothing")
			}
		})
	}
	snooping("1")
	for _, ef := range effects {
		t.Run(ef.name, func(t *testing.T) {
			s.recover(t)
			if success, _ := ef.attempt(t); !success {
				t.Error("the attack fails by itself: it proves nothing")
			}
		})
	}
	s.recover(t)
	t.Run("a_storm_of_broadcasts_arrives", func(t *testing.T) {
		if got := s.storm(t, 5000); got != 5000 {
			t.Errorf("only %d of 5000 arrived", got)
		}
	})
	// Nothing limits these; the table has room for 262,144 on most hosts.
	t.Run("filling_the_hosts_connection_table_from_its_own_address", func(t *testing.T) {
		const n = 2000
		grown := s.connections(t, n, func(i int) netip.AddrPort { return netip.AddrPortFrom(s.attacker.IPv4, uint16(20000+i)) })
		if grown < n*9/10 {
			t.Errorf("the table grew by %d of %d", grown, n)
		}
	})
}

func (s *stage) attacksFail(t *testing.T, a *Agent, effects []effect, checks []check) {
	all := []*actor{s.attacker, s.victim, s.third}
	were := violations(t, a, all...)
	// counted makes an attempt that is counted so many times. What is honest goes on after
	// it, and is not.
	counted := func(t *testing.T, k attack.Kind, attempt func() int) {
		t.Helper()
		want := slices.Clone(were)
		want[0] = plus(want[0], k, uint64(attempt()))
		stillHonest(t, checks)
		were = violations(t, a, all...)
		for i, is := range were {
			if is != want[i] {
				t.Errorf("violations of %s: %+v, want %+v", all[i].Name, is, want[i])
			}
		}
	}
	for _, at := range attack.All {
		t.Run(at.Name+"_does_not_arrive", func(t *testing.T) {
			counted(t, at.Kind, func() int {
				if s.attacker.delivers(t, s.victim, at.Frame(s.scene)) {
					t.Error("it arrived")
				}
				return 1
			})
		})
	}
	for _, ef := range effects {
		t.Run(ef.name+"_fails", func(t *testing.T) {
			counted(t, ef.kind, func() int {
				success, frames := ef.attempt(t)
				if success {
					t.Error("the attack succeeds")
				}
				return frames
			})
		})
	}
	t.Run("the_kernel_of_a_container_may_detect_duplicates_of_its_address", func(t *testing.T) {
		counted(t, attack.OfND, func() int { s.detectDuplicates(t); return 0 })
	})
	t.Run("a_DHCP_client_is_none_of_it", func(t *testing.T) {
		counted(t, attack.OfDHCP, func() int {
			if !s.attacker.delivers(t, s.victim, attack.Discover(s.attacker.MAC)) {
				t.Error("its question did not arrive")
			}
			return 0
		})
	})
	t.Run("a_storm_of_broadcasts_is_cut_to_its_burst", func(t *testing.T) {
		const n, burst = 5000, 2000
		before := violations(t, a, all...)
		arrived := s.storm(t, n)
		// Others are not bound by its limit, nor is its unicast.
		s.third.greet(t, s.victim)
		if err := s.attacker.echo(s.victim.Addr("net", 80)); err != nil {
			t.Errorf("unicast during a storm: %v", err)
		}
		after := violations(t, a, all...)
		if want := plus(before[0], attack.OfStorm, uint64(n-arrived)); after[0] != want || after[1] != before[1] || after[2] != before[2] {
			t.Errorf("%d arrived, counted %+v, want %+v", arrived, after, want)
		}
		if arrived < burst || arrived > burst+2000 {
			t.Errorf("%d of %d arrived, the burst is %d", arrived, n, burst)
		}
		time.Sleep(time.Second) // in which the limit lets it send a thousand again
		stillHonest(t, checks)
	})
}
