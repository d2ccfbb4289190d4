package reconcile

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"netguard/agent/config"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

func TestAdmit(t *testing.T) {
	d := &desired.Endpoint{Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: "n"}, Port: &link.Port{Seen: 7, Index: 3, MasterName: "br-n"},
		Network: docker.Network{Name: "front", Bridge: "br-n"}}}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		police   policing
		wrong    bool
		shaped   bool
		admitted bool
		failing  bool
		within   bool
		bridges  error
		behind   bool // its network's rules may come before netguard's
		want     desired.Verdict
	}{
		"all_is_in_force":                          {police: policing{holds: true, ever: true}, shaped: true, want: desired.Admit},
		"its_limit_is_not_there_yet":               {police: policing{holds: true, ever: true}, want: desired.Refuse},
		"its_limit_cannot_be_put_in_place":         {police: policing{holds: true, ever: true}, shaped: true, failing: true, want: desired.Leave},
		"its_limit_cannot_be_put_in_place_later":   {police: policing{holds: true, ever: true}, shaped: true, failing: true, admitted: true, want: desired.Stay},
		"neither_its_limit_nor_rules_are_in_force": {police: policing{ever: true}, shaped: true, failing: true, want: desired.Refuse},
		"rules_were_never_in_force":                {police: policing{dirty: true}, shaped: true, want: desired.Leave},
		"rules_are_not_in_force_any_more":          {police: policing{dirty: true, ever: true}, shaped: true, want: desired.Refuse},
		"only_what_was_before_cannot_be_removed":   {police: policing{dirty: true, holds: true, ever: true}, shaped: true, want: desired.Admit},
		"it_was_admitted_and_a_change_fails":       {police: policing{dirty: true, ever: true}, shaped: true, admitted: true, want: desired.Stay},
		"a_label_is_wrong":                         {police: policing{holds: true, ever: true}, wrong: true, shaped: true, admitted: true, want: desired.Refuse},
		"its_bridge_cannot_be_filtered":            {police: policing{holds: true, ever: true}, shaped: true, admitted: true, within: true, bridges: iptables.BridgeError{"br-n": broken}, want: desired.Refuse},
		"no_bridge_can_be_set":                     {police: policing{holds: true, ever: true}, shaped: true, within: true, bridges: broken, want: desired.Refuse},
		"another_bridge_cannot_be_filtered":        {police: policing{holds: true, ever: true}, shaped: true, within: true, bridges: iptables.BridgeError{"br-x": broken}, want: desired.Admit},
		"no_policy_is_about_it_within_its_bridge":  {police: policing{holds: true, ever: true}, shaped: true, bridges: iptables.BridgeError{"br-n": broken}, want: desired.Admit},
		"it_is_led_past_the_rules":                 {police: policing{holds: true, ever: true}, shaped: true, within: true, behind: true, want: desired.Refuse},
		"it_was_admitted_before_that":              {police: policing{holds: true, ever: true}, shaped: true, within: true, behind: true, admitted: true, want: desired.Stay},
		"no_policy_is_about_it_at_all":             {police: policing{holds: true, ever: true}, shaped: true, behind: true, want: desired.Admit},
	} {
		t.Run(name, func(t *testing.T) {
			l := &Loop{handover: handover{owners: map[netip.Addr][]string{}}, shaping: newShaping(slog.New(slog.DiscardHandler), nil, nil, time.Now), admitted: map[uint64]bool{7: c.admitted}, policing: &c.police}
			r := &shaped{known: c.shaped, form: d.Form()}
			if c.failing {
				r.err = broken
			}
			l.shaping.ports[7] = r
			e := *d
			if c.wrong {
				e.Wrong = []string{"a label"}
			}
			var catalog netpolicy.Catalog
			if c.within {
				catalog = netpolicy.Load([]netpolicy.Source{{Name: "p.yaml", Data: []byte("name: p\nselect: {}\ningress: []\n")}})
			}
			p := &PolicyState{Ruling: desired.Rule(&catalog, []*desired.Endpoint{d}), bridgesErr: c.bridges, covered: networks{"n": !c.behind}}
			if got := l.admit(&e, p); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// TestAdmitAfterExclusion: a container that was admitted and then excluded is admitted again when
// all that it should have is in the kernel, as anybody else.
func TestAdmitAfterExclusion(t *testing.T) {
	w := newWorld(t)
	c := w.come("back", map[string]string{"netguard.egress.rate": "10mbit"})
	w.come("front", nil)
	w.run(2 * time.Second)
	managed := w.cfg
	w.cfg, w.woken = &config.Config{Storm: guard.DefaultStorm, Exclude: []string{"back"}}, true
	if w.run(2 * time.Second); !w.guard.Sends(c.port.Index) {
		t.Fatal("it is excluded and does not send")
	}
	w.fails = func(at string, _ int) error {
		if at == "rules write" {
			return errInjected
		}
		return nil
	}
	w.cfg, w.woken = managed, true
	if w.run(5 * time.Second); w.guard.Sends(c.port.Index) {
		t.Error("it sends, and its rules are not in the kernel")
	}
	w.settle(90 * time.Second)
	w.check()
}

// TestAdmittedUntilItsBridgeFails: whoever was admitted is closed when its bridge hands nothing
// to the rules any more, and admitted again when it does.
func TestAdmittedUntilItsBridgeFails(t *testing.T) {
	w := newWorld(t)
	c, other := w.come("front", service(1)), w.come("back", service(1))
	w.policies(1)
	w.run(time.Second)
	for _, fails := range []bool{false, true, false} {
		w.fails = func(at string, port int) error {
			if fails && at == "rules switch" && !w.rules.HandsOver("br-front") {
				return errInjected
			}
			return nil
		}
		if fails {
			w.rules.SwitchOff("br-front")
			w.damaged()
			w.told(c.port.Master)
		}
		w.run(15 * time.Second)
		if w.guard.Sends(c.port.Index) == fails || !w.guard.Sends(other.port.Index) {
			t.Errorf("the bridge fails: %t. Admitted are it: %t, and another bridge's: %t", fails, w.guard.Sends(c.port.Index), w.guard.Sends(other.port.Index))
		}
	}
}
