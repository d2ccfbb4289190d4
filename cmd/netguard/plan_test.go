package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"netguard/cmd/netguard/term"
	"netguard/netpolicy"
)

func TestPlan(t *testing.T) {
	host := shop(t)
	socket := servePolicies(t, host)
	unchanged := policyDir(t, map[string]string{"renamed.yml": string(host.inForce[0].Data), "note.txt": badPolicy})
	changed := policyDir(t, map[string]string{
		"shop.yaml": strings.ReplaceAll(string(host.inForce[0].Data), "tcp/5432", "tcp/6432"),
		"host.yaml": "name: no-host\nselect: {}\ndeny: [{egress: {to: [{entity: host}]}}]\n",
	})
	faulty := policyDir(t, map[string]string{"good.yaml": goodPolicy, "bad.yaml": badPolicy})
	empty, none := t.TempDir(), filepath.Join(t.TempDir(), "none")
	nobody := filepath.Join(t.TempDir(), "x.sock")
	config := func(dir, socket string) string { return file(t, "policy_dir: "+dir+"\nsocket: "+socket+"\n") }
	for name, test := range map[string]struct {
		args   []string
		code   int
		stdout string // a part of it; "" is nothing at all
		stderr string
	}{
		"nothing_changes":                {[]string{"--policy-dir", unchanged, "--socket", socket}, 0, "Nothing changes.\n", ""},
		"something_changes":              {[]string{"--policy-dir", changed, "--socket", socket}, 0, "by tcp/6432 over IPv4: allowed by policy", ""},
		"faults":                         {[]string{"--policy-dir", faulty, "--socket", nobody}, 1, "", filepath.Join(faulty, "bad.yaml") + ":4:5: there is no key"},
		"faults_for_machines":            {[]string{"--policy-dir", faulty, "--socket", nobody, "-o", "json"}, 1, "", "bad.yaml:4:5: there is no key"},
		"no_files":                       {[]string{"--policy-dir", empty, "--socket", socket}, 0, "is open", empty + " has no policy files"},
		"no_directory_of_that_name":      {[]string{"--policy-dir", none, "--socket", socket}, 1, "", none + ":1:1: there is no such file or directory"},
		"a_file":                         {[]string{"--policy-dir", filepath.Join(changed, "shop.yaml"), "--socket", socket}, 2, "", "which is no directory"},
		"the_configuration's_directory":  {[]string{"--config", config(unchanged, socket)}, 0, "Nothing changes.\n", ""},
		"a_directory_wins_over_the_file": {[]string{"--config", config(faulty, socket), "--policy-dir", unchanged}, 0, "Nothing changes.\n", ""},
		"a_named_socket_does_not_hide_the_configuration's_directory": {[]string{"--config", config(unchanged, nobody), "--socket", socket}, 0, "Nothing changes.\n", ""},
		"the_configuration's_directory_is_not_there":                 {[]string{"--config", config(none, socket)}, 0, "is open", none + " has no policy files"},
		"a_fault_in_the_configuration":                               {[]string{"--config", file(t, "policy_dir: x\n"), "--socket", socket}, 2, "", "netguard.yaml:1:13"},
		"a_fault_in_an_unneeded_configuration":                       {[]string{"--config", file(t, "policy_dir: x\n"), "--socket", socket, "--policy-dir", unchanged}, 0, "Nothing changes.\n", ""},
		"no_agent":                                                   {[]string{"--policy-dir", unchanged, "--socket", nobody}, 3, "", nobody},
		"arguments":                                                  {[]string{"x.yaml", "--socket", socket}, 2, "", "x.yaml"},
		"a_wrong_output":                                             {[]string{"-o", "table", "--socket", socket}, 2, "", "text, json, yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := netguard(t, append([]string{"policy", "plan"}, test.args...)...)
			if code != test.code || !strings.Contains(stdout, test.stdout) || test.stdout == "" && stdout != "" {
				t.Errorf("%d %q instead of %d %q", code, stdout, test.code, test.stdout)
			}
			if test.stderr == "" && stderr != "" || !strings.Contains(stderr, test.stderr) {
				t.Errorf("%q instead of %q", stderr, test.stderr)
			}
		})
	}
	t.Run("says_the_same_in_JSON_and_YAML", func(t *testing.T) {
		_, out, _ := netguard(t, "policy", "plan", "--policy-dir", changed, "--socket", socket, "-o", "json")
		golden(t, "plan_json", out)
		_, text, _ := netguard(t, "policy", "plan", "--policy-dir", changed, "--socket", socket, "-o", "yaml")
		var a, b netpolicy.Delta
		if err := errors.Join(json.Unmarshal([]byte(out), &a), yaml.Unmarshal([]byte(text), &b)); err != nil {
			t.Fatal(err)
		}
		exported := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".open" }, cmp.Ignore())
		if diff := cmp.Diff(a, b, exported); diff != "" || len(a.Connections) == 0 {
			t.Error(diff)
		}
	})
	t.Run("says_what_the_agent_found_wrong", func(t *testing.T) {
		other := servePolicies(t, refusing{netpolicy.Load([]netpolicy.Source{{Name: "api.yaml", Data: []byte(badPolicy)}}).Faults()})
		code, stdout, stderr := netguard(t, "policy", "plan", "--policy-dir", unchanged, "--socket", other)
		if code != 1 || stdout != "" || !strings.Contains(stderr, "api.yaml:4:5: ") || !strings.Contains(stderr, "api.yaml:5:13: ") {
			t.Errorf("%d %s %s", code, stdout, stderr)
		}
	})
}

func TestDeltaText(t *testing.T) {
	host := shop(t)
	plan := func(text string) netpolicy.Delta {
		d, err := host.Plan(t.Context(), []netpolicy.Source{{Name: "p.yaml", Data: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	tiers := string(host.inForce[0].Data)
	strange := netpolicy.Delta{
		Endpoints: []netpolicy.EndpointChange{{Before: []string{"a"}, After: []string{"b"}, Sentence: "\x1b[2J\n+ a fake line " + longWord}},
		Truncated: true,
	}
	for name, test := range map[string]struct {
		delta netpolicy.Delta
		view  term.View
	}{
		"plan_another_port": {plan(strings.ReplaceAll(tiers, "tcp/5432", "tcp/6432")), term.View{Width: 100}},
		"plan_renamed":      {plan(strings.ReplaceAll(tiers, "name: shop-db", "name: database")), term.View{Width: 100, Colour: true}},
		"plan_none":         {plan(""), term.View{Width: 80}},
		"plan_no_change":    {plan(tiers), term.View{Width: 100}},
		"plan_strange":      {strange, term.View{Width: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			text := deltaText(test.delta, test.view)
			golden(t, name, text)
			for line := range strings.Lines(text) {
				if term.Columns(strings.TrimSuffix(line, "\n")) > test.view.Width && !test.view.Colour && !strings.Contains(line, longWord) {
					t.Errorf("longer than %d columns: %s", test.view.Width, line)
				}
				if strings.HasPrefix(line, "+ a fake line") || !test.view.Colour && strings.Contains(line, "\x1b") {
					t.Errorf("a stranger's line: %q", line)
				}
			}
		})
	}
}
