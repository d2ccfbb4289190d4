package status

import (
	"errors"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/agent/reconcile"
	"netguard/netpolicy/guard"
	"netguard/shaper/tc"
)

// The contract has three states: what is not there yet, or not any more, is no fourth.
func TestStates(t *testing.T) {
	for name, c := range map[string]struct {
		port    guard.PortReport
		limit   string // what is missing of it
		wrong   []string
		open    bool
		state   string
		missing bool
		reason  string
	}{
		"all_is_there":                          {port: guard.PortReport{State: guard.Admitted, Passes: true}, state: control.Admitted},
		"a_limit_is_missing":                    {port: guard.PortReport{State: guard.Admitted, Passes: true}, limit: "the limit", state: control.Admitted, missing: true, reason: "the limit"},
		"it_waits_for_its_limit":                {port: guard.PortReport{State: guard.Quarantined}, limit: "the limit", state: control.Quarantined, missing: true, reason: "the limit"},
		"it_waits":                              {port: guard.PortReport{State: guard.Quarantined}, state: control.Quarantined, missing: true, reason: "not all of its rules"},
		"a_label_is_wrong":                      {port: guard.PortReport{State: guard.Quarantined}, wrong: []string{"label"}, state: control.Quarantined, reason: "label"},
		"its_MAC_is_another's":                  {port: guard.PortReport{State: guard.Quarantined, Faults: []string{"its MAC"}}, state: control.Quarantined, reason: "its MAC"},
		"nobody_guards_it":                      {port: guard.PortReport{State: guard.Trusted}, state: control.Admitted, reason: "networks.unguarded"},
		"a_setting_of_its_port_is_missing":      {port: guard.PortReport{State: guard.Pending, Passes: true}, state: control.Admitted, missing: true, reason: "not guarded yet"},
		"its_port_was_never_let_in":             {port: guard.PortReport{State: guard.Pending}, state: control.Quarantined, missing: true, reason: "not guarded yet"},
		"its_port_is_not_known":                 {limit: "its port", state: control.Quarantined, missing: true, reason: "its port"},
		"its_port_is_not_known_and_need_not_be": {limit: "its port", open: true, state: control.Admitted, missing: true, reason: "its port"},
	} {
		t.Run(name, func(t *testing.T) {
			e := control.Endpoint{State: control.Admitted, Missing: c.limit, Reason: c.limit}
			judge(&e, &desired.Endpoint{Wrong: c.wrong}, c.port, c.open)
			if e.State != c.state || (e.Missing != "") != c.missing || !strings.Contains(e.Reason, c.reason) || c.reason == "" && e.Reason != "" {
				t.Errorf("state %q, missing %q, reason %q", e.State, e.Missing, e.Reason)
			}
			if wrong := e.State == control.Quarantined || c.missing; e.Wrong() != wrong {
				t.Errorf("wrong: %v", !wrong)
			}
		})
	}
}

// A port that is not found is no reason to say that the container is let in.
func TestStateOfAnEndpointWithoutAPort(t *testing.T) {
	r := &Reader{Mode: control.ModeEnforce}
	d := &desired.Endpoint{Endpoint: endpoint.Endpoint{Network: docker.Network{Bridge: "br-n"}}}
	for admission, want := range map[string]string{reconcile.AdmissionClosed: control.Quarantined, "": control.Quarantined, reconcile.AdmissionOpen: control.Admitted} {
		e := r.endpoint(d, &reconcile.State{Admission: admission}, &tc.Snapshot{}, rules{}, guard.Report{})
		if e.State != want || !strings.Contains(e.Reason, `bridge "br-n" is not found`) || e.Missing != e.Reason {
			t.Errorf("admission %q: %+v", admission, e)
		}
	}
	d.Unmanaged = "it is not ours"
	d.Port = &link.Port{Index: 1}
	if e := r.endpoint(d, &reconcile.State{}, &tc.Snapshot{}, rules{}, guard.Report{}); e.State != control.Unmanaged || e.Missing != "" || e.Reason != d.Unmanaged {
		t.Errorf("%+v", e)
	}
}

// An agent that has only begun says so, and does not cry wolf.
func TestStarting(t *testing.T) {
	read := observe.Snapshot{At: time.Now()}
	for name, c := range map[string]struct {
		o        observe.Snapshot
		complete bool
		age      time.Duration
		want     bool
	}{
		"nothing is read yet":            {age: time.Second, want: true},
		"Docker takes too long":          {age: patient},
		"Docker answered with an error":  {o: observe.Snapshot{Err: errors.New("no")}, age: time.Second},
		"Docker answered":                {o: read, complete: true, age: time.Second},
		"Docker answered, no pass since": {o: read, age: time.Second},
	} {
		if got := starting(c.o, c.complete, c.age); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
