package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"netguard/agent/doctor"
	"netguard/cmd/netguard/term"
)

// patient is a report with all that one can have, and strangers' texts.
func patient() doctor.Report {
	return doctor.Report{
		Version: "v1.2.0", Result: doctor.Fail, OK: 1, Warn: 2, Fail: 1, Skip: 1,
		Checks: []doctor.Check{
			{Name: "host.kernel", Result: doctor.OK, Found: "Linux 6.12.4"},
			{Name: "host.namespace", Result: doctor.Skip, Found: "Docker does not answer, so its bridges are not known"},
			{Name: "policy.bridges", Result: doctor.Warn, Found: "br_netfilter is not loaded: policies hold between networks and with the outside, not between two containers of one network",
				Remedy: "modprobe br_netfilter, and name it in /etc/modules-load.d; before that, put its switches to 0 in /etc/sysctl.d, so that other bridges stay as they are"},
			{Name: "agent.finding", Result: doctor.Warn, Found: "evil\x1b[2J\r\u202egnp.exe\nFAIL  second line\n" + longWord},
			{Name: "files.configuration", Result: doctor.Fail, Found: "/etc/netguard/netguard.yaml:2:1: there is no key \"limit\": did you mean limits?\n/etc/netguard/netguard.yaml:3:9: a", Remedy: "mend the file"},
		},
	}
}

func TestReportText(t *testing.T) {
	golden(t, "doctor", reportText(patient(), term.View{Width: term.UsualWidth}))
	golden(t, "doctor_narrow_colour", reportText(patient(), term.View{Width: term.LeastWidth, Colour: true}))
	plain := reportText(patient(), term.View{Width: term.UsualWidth})
	if strings.Contains(plain, "\x1b") || strings.Contains(plain, "\nFAIL  second") {
		t.Errorf("a stranger draws on the terminal: %q", plain)
	}
	for _, result := range []doctor.Result{doctor.OK, doctor.Warn} {
		last := reportText(doctor.Report{Result: result}, term.View{Width: term.UsualWidth})
		if !strings.Contains(last, "This host is ready") || strings.Contains(last, "reservations") != (result == doctor.Warn) {
			t.Error(last)
		}
	}
}

func TestDoctor(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "none.sock")
	policies := t.TempDir()
	if err := os.WriteFile(filepath.Join(policies, "db.yaml"), []byte("name: db\nselect: {}\nform: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	here := func(args ...string) []string {
		return append([]string{"doctor", "--docker-host", "unix://" + nowhere, "--socket", nowhere}, args...)
	}
	ask := func(t *testing.T, args ...string) map[string]doctor.Check {
		t.Helper()
		code, out, stderr := netguard(t, here(append(args, "-o", "json")...)...)
		var r doctor.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if code != exitNotFine || stderr != "" || r.Result != doctor.Fail {
			t.Errorf("exit code %d, %s, %q", code, r.Result, stderr)
		}
		checks := map[string]doctor.Check{}
		for _, c := range r.Checks {
			checks[c.Name] = c
		}
		return checks
	}
	t.Run("without_an_engine_and_an_agent", func(t *testing.T) {
		checks := ask(t, "--config", file(t, ""))
		if checks["docker.engine"].Result != doctor.Fail || checks["agent.running"].Result != doctor.Warn || checks["files.configuration"].Result != doctor.OK {
			t.Errorf("%+v", checks)
		}
	})
	t.Run("faults_of_files_have_their_place", func(t *testing.T) {
		checks := ask(t, "--config", file(t, "limit: 3\n"), "--policy-dir", policies)
		if c := checks["files.configuration"]; c.Result != doctor.Fail || !strings.Contains(c.Found, "netguard.yaml:1:1") {
			t.Errorf("%+v", c)
		}
		if c := checks["files.policies"]; c.Result != doctor.Fail || !strings.Contains(c.Found, "db.yaml:3:1") {
			t.Errorf("%+v", c)
		}
	})
	t.Run("a_file_that_was_named_and_is_not_there", func(t *testing.T) {
		if c := ask(t, "--config", "/nonexistent/x.yaml")["files.configuration"]; c.Result != doctor.Fail || !strings.Contains(c.Found, "/nonexistent/x.yaml") {
			t.Errorf("%+v", c)
		}
	})
	t.Run("an_agent", func(t *testing.T) {
		_, out, _ := netguard(t, "doctor", "--docker-host", "unix://"+nowhere, "--socket", serve(t, always(sick())), "-o", "json")
		for _, want := range []string{`"agent.running"`, "the agent is v1, this is " + buildVersion().version, "not as declared", "does not reach Docker", "docker does not answer"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in %s", want, out)
			}
		}
	})
	t.Run("yaml_says_the_same", func(t *testing.T) {
		var a, b doctor.Report
		text, err := yaml.Dump(patient())
		if err == nil {
			err = yaml.Unmarshal(text, &a)
		}
		if err != nil {
			t.Fatal(err)
		}
		text, _ = json.Marshal(patient())
		if err := json.Unmarshal(text, &b); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, b); d != "" {
			t.Error(d)
		}
	})
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a_wrong_output":       {here("-o", "wide"), "table, json, yaml"},
		"arguments":            {here("db"), "db"},
		"an_empty_socket":      {[]string{"doctor", "--socket", ""}, "--socket"},
		"a_directory_is_none":  {here("--policy-dir", filepath.Join(policies, "db.yaml")), "no directory"},
		"a_strange_dockerhost": {[]string{"doctor", "--docker-host", "ftp://x"}, "--docker-host"},
	} {
		t.Run(name, func(t *testing.T) {
			if code, out, stderr := netguard(t, test.args...); code != exitUsage || out != "" || !strings.Contains(stderr, test.want) {
				t.Errorf("%d %q %q", code, out, stderr)
			}
		})
	}
}

// TestDoctorDocs has the documented output be what this struct says.
func TestDoctorDocs(t *testing.T) {
	for _, text := range blocks(t, "doctor.md", "json") {
		var r doctor.Report
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&r); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := writeJSON(&out, r, "  "); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(text, out.String()); d != "" {
			t.Error(d)
		}
	}
}
