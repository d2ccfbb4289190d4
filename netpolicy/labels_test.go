package netpolicy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"netguard/shaper"
)

// Each label that looks like one of netguard's has exactly one reader.
func TestEveryLabelHasOneReader(t *testing.T) {
	for _, label := range []string{
		"netguard.ingress", "netguard.egress", "netguard.ingres", "netguard.ingress.rat", "netguard.rate", "netguard.egress.rate", "netguard.network.a.b",
		"netguard.ingress.from", "netguard.networks.a.egress.rate", "netguard.x", "netguard.", "netguard.ingress ",
	} {
		readers := 0
		for _, reads := range []bool{slices.Contains(policyLabels[:], label), shaper.Claims(label), len(Strays(map[string]string{label: ""})) > 0} {
			if reads {
				readers++
			}
		}
		if readers != 1 {
			t.Errorf("%q has %d readers", label, readers)
		}
	}
	for _, label := range []string{"netguard.enabled", "netguard.guard.allow", "netguard.guard.connections", "netguard.guard.dhcp"} {
		if slices.Contains(policyLabels[:], label) || shaper.Claims(label) || len(Strays(map[string]string{label: ""})) > 0 {
			t.Errorf("%q is refused", label)
		}
	}
}

func TestStrays(t *testing.T) {
	for label, want := range map[string]string{
		"netguard.ingres":            "did you mean netguard.ingress?",
		"netguard.Egress":            "did you mean netguard.egress?",
		"NetGuard.ingress":           "did you mean netguard.ingress?",
		"netgaurd.ingress":           "did you mean netguard.ingress?",
		"netguard.gaurd.allow":       "did you mean netguard.guard.allow?",
		"netguard.guard.dhpc":        "did you mean netguard.guard.dhcp?",
		"netguard.enable":            "did you mean netguard.enabled?",
		"netguard.policy":            "the labels are netguard.ingress",
		"netguard.ingress.rate":      "",
		"netguards.io/owner":         "",
		"com.docker.compose.project": "",
		"netguide.ingress.chapter":   "",
		"traefik.enable":             "",
	} {
		faults := Strays(map[string]string{label: "x"})
		switch {
		case want == "" && len(faults) > 0:
			t.Errorf("%q: %v", label, faults)
		case want != "" && (len(faults) != 1 || !strings.Contains(faults[0].Error(), want) || !strings.HasPrefix(faults[0].Error(), "label "+label+": ")):
			t.Errorf("%q: %v", label, faults)
		}
	}
}

func TestLabelFaults(t *testing.T) {
	long := "[" + strings.Repeat("{},", 50) + "{}]"
	for name, test := range map[string]struct{ label, value, want string }{
		"empty":           {"netguard.ingress", "", "label netguard.ingress:1:1: it has no value: write [] to allow nothing"},
		"null":            {"netguard.ingress", "null", "it has no value"},
		"not_yaml":        {"netguard.egress", "[{to: [", "label netguard.egress:2:1: this is not YAML"},
		"a_mapping":       {"netguard.ingress", "from: [{service: api}]", "label netguard.ingress:1:1: netguard.ingress is a mapping: it is a list"},
		"wrong_key":       {"netguard.ingress", "- form: [{service: api}]", `label netguard.ingress:1:3: there is no key "form" under ingress[0]: did you mean from?`},
		"wrong_direction": {"netguard.egress", "- from: [{service: api}]", "rules of ingress say from, rules of egress say to"},
		"wrong_port":      {"netguard.ingress", "- ports:\n  - tcp/http\n", "label netguard.ingress:2:5: ingress[0].ports[0] is \"tcp/http\""},
		"two_documents":   {"netguard.ingress", "[]\n---\n[]", "more than 1 documents"},
		"an_alias":        {"netguard.ingress", "- &a {}\n- *a", `the anchor "&a" is not read here`},
		"too_large":       {"netguard.ingress", strings.Repeat("#", MaxLabelBytes+1), "put the policy in a file"},
		"too_many_rules": {"netguard.ingress", "- from: [" + strings.Repeat("{service: a}, ", 50) + "{service: b}]\n  ports: [icmp, tcp, udp, sctp]\n",
			"at most 200 are made of a label"},
		"many_rules_are_fine": {"netguard.ingress", long, ""},
		"nothing":             {"netguard.ingress", "[]", ""},
		"not_one_of_ours":     {"netguard.ingress.rate", "what", ""},
		"misspelt":            {"netguard.ingres", "[]", "did you mean netguard.ingress?"},
	} {
		t.Run(name, func(t *testing.T) {
			faults := labelFaults(Workload{Name: "c", Labels: map[string]string{test.label: test.value}})
			if got := faults.Error(); test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestPeersOfALabelAreOfTheContainersProject(t *testing.T) {
	rules, faults := parseLabel("netguard.ingress", "[{from: [{service: api}, {project: blog}, {project: '*', service: x}]}]", Ingress, "shop")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for i, want := range []string{"project=shop service=api", "project=blog", "service=x"} {
		if got := rules[0].peers[i].String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What all containers say together is bounded; who says little is not crowded out.
func TestLabelsTogether(t *testing.T) {
	var all []Endpoint
	for i := range 60 {
		e := managed(fmt.Sprintf("greedy-%02d", i), "n", fmt.Sprintf("10.0.0.%d", 2+i))
		var peers []string
		for j := range 100 {
			peers = append(peers, fmt.Sprintf("{service: s%d-%d}", i, j))
		}
		e.Labels = map[string]string{labelEgress: "[{to: [" + strings.Join(peers, ",") + "]}]"}
		all = append(all, e)
	}
	modest := managed("modest", "n", "10.0.1.2")
	modest.Labels = map[string]string{labelIngress: "[{from: [{service: api}]}]"}
	all = append(all, modest)
	rs := Compile(World{Endpoints: refs(all)})
	locked := 0
	for _, s := range rs.States[:60] {
		if len(s.Locked) > 0 {
			locked++
			if !strings.Contains(s.Locked[0], "put the policy in a file") {
				t.Errorf("%s: %q", s.Container, s.Locked)
			}
		}
	}
	if want := 60 - (maxLabelsCost-1)/100; locked != want {
		t.Errorf("%d are closed, want %d", locked, want)
	}
	if s := rs.States[60]; len(s.Locked) > 0 || !s.Isolated(Ingress) {
		t.Errorf("the modest one: %+v", s)
	}
	again := Compile(World{Endpoints: refs(all)})
	if again.Generation != rs.Generation || !reflect.DeepEqual(again.States, rs.States) {
		t.Error("not the same twice")
	}
}
