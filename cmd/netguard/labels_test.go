package main

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"netguard/internal/label"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

func TestLabelsVerb(t *testing.T) {
	code, out, errs := netguard(t, "labels")
	if code != exitFine || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, l := range label.All {
		if !strings.Contains(out, l.Key+"="+l.Value+"\n") {
			t.Errorf("%s is not told of:\n%s", l.Key, out)
		}
	}
	code, out, _ = netguard(t, "labels", "netguard.egress.rate", "-o", "json")
	var got []label.Label
	if err := json.Unmarshal([]byte(out), &got); code != exitFine || err != nil || len(got) != 1 || got[0].Key != label.EgressRate {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	if code, _, errs := netguard(t, "labels", "netguard.egres.rate"); code != exitUsage || !strings.Contains(errs, "did you mean netguard.egress.rate?") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// parsers read the labels, by key: whoever obeys a label reads it as this does.
var parsers = map[string]func(key, value string) error{
	label.IngressRate: bandwidth, label.EgressRate: bandwidth, label.IngressBurst: bandwidth, label.EgressBurst: bandwidth,
	label.Ingress: policy, label.Egress: policy,
	label.Connections: func(_, v string) error { _, err := guard.ParseConnections(v); return err },
	label.Allow:       func(_, v string) error { _, err := guard.ParseAllow(v); return err },
	label.DHCP:        func(_, v string) error { return guard.ParseDHCP(v) },
	label.Enabled:     nil, // agent/endpoint reads it: true or false
}

func bandwidth(key, value string) error {
	for _, f := range shaper.Decode(map[string]string{key: value}, "n", []string{"n"}).Faults {
		return f
	}
	return nil
}

func policy(key, value string) error {
	if faults := labelFaults(map[string]string{key: value}); len(faults) > 0 {
		return errors.New(faults[0])
	}
	return nil
}

// labelFaults are the faults for which a container with the labels is closed.
func labelFaults(labels map[string]string) []string {
	e := netpolicy.Endpoint{Workload: netpolicy.Workload{Labels: labels}, Managed: true}
	return netpolicy.Compile(netpolicy.World{Endpoints: []*netpolicy.Endpoint{&e}}).States[0].Locked
}

// TestExamplesOfLabels: the example of each label is one that its reader takes, alone and
// for one network, and no label is misspelt in the eyes of another reader.
func TestExamplesOfLabels(t *testing.T) {
	if d := len(parsers) - len(label.All); d != 0 {
		t.Errorf("labels %v, readers of %v", label.Keys(), slices.Sorted(maps.Keys(parsers)))
	}
	for _, l := range label.All {
		keys := []string{l.Key}
		if l.PerNetwork {
			keys = append(keys, l.ForNetwork("n"))
		}
		for _, key := range keys {
			if parse := parsers[l.Key]; parse != nil {
				if err := parse(key, l.Value); err != nil {
					t.Errorf("%s=%s: %v", key, l.Value, err)
				}
				if parse(key, "no such thing") == nil {
					t.Errorf("%s takes anything", key)
				}
			}
			if faults := netpolicy.Strays(map[string]string{key: l.Value}); len(faults) > 0 {
				t.Errorf("%s is nobody's: %v", key, faults)
			}
		}
	}
}
