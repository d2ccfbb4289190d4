package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/agent/control"
	"netguard/netpolicy"
)

const (
	goodPolicy = "name: db\nselect: {service: db}\ningress: []\n"
	badPolicy  = "name: api\nselect: {service: api}\ningress:\n  - form: [{service: web}]\n    ports: [5432/tcp]\n"
)

func TestValidate(t *testing.T) {
	dir := policyDir(t, map[string]string{
		"good.yaml": goodPolicy, "two.yml": "name: a\nselect: {}\negress: []\n---\nname: b\nselect: {}\nground: []\n---\n",
		"again.yaml": "# the same name again\n" + goodPolicy, "empty.yaml": "# nothing yet\n",
		"bad.yaml": badPolicy, "control.yaml": "name: \"a\x1b[2J\"\n", "binary.yaml": "name: \xff\n", "large.yaml": strings.Repeat("# 345678\n", netpolicy.MaxFileBytes/9+1),
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := unix.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	some := policyDir(t, map[string]string{"db.yaml": goodPolicy, ".hidden.yaml": badPolicy, "note.txt": badPolicy, "db.yaml.bak": badPolicy})
	for name, test := range map[string]struct {
		args   []string
		code   int
		stdout string
		stderr []string // a part of each line
	}{
		"a_good_file":              {[]string{at("good.yaml")}, 0, "1 policy in 1 file\n", nil},
		"a_file_that_says_nothing": {[]string{at("good.yaml"), at("empty.yaml")}, 0, "1 policy in 2 files\n", nil},
		"a_file_twice":             {[]string{at("good.yaml"), dir + "/./good.yaml"}, 0, "1 policy in 1 file\n", nil},
		"a_directory":              {[]string{some}, 0, "1 policy in 1 file\n", nil},
		"a_directory_and_its_file": {[]string{some, filepath.Join(some, "db.yaml")}, 0, "1 policy in 1 file\n", nil},
		"a_directory_without_any":  {[]string{t.TempDir()}, 0, "0 policies in 0 files\n", nil},
		"a_hidden_file_by_name":    {[]string{filepath.Join(some, ".hidden.yaml")}, 1, "", []string{":4:5: ", ":5:13: "}},
		"faults": {[]string{at("bad.yaml")}, 1, "", []string{
			at("bad.yaml") + `:4:5: there is no key "form" under ingress[0]: did you mean from?`,
			at("bad.yaml") + `:5:13: ingress[0].ports[0] is "5432/tcp": the protocol comes first: write tcp/5432`,
		}},
		"the_faults_of_all":           {[]string{at("two.yml"), at("bad.yaml")}, 1, "", []string{"bad.yaml:4:5", "bad.yaml:5:13", `two.yml:7:1: there is no key "ground"`}},
		"a_name_in_two_files":         {[]string{at("good.yaml"), at("again.yaml")}, 1, "", []string{`good.yaml:1:7: the name "db" is taken by the policy at ` + at("again.yaml") + ":2:7"}},
		"a_control_sequence":          {[]string{at("control.yaml")}, 1, "", []string{"control.yaml:1:1: this is not YAML: control characters"}},
		"no_text":                     {[]string{at("binary.yaml")}, 1, "", []string{"binary.yaml:1:1: this is not YAML"}},
		"one_that_is_not_there":       {[]string{at("nope.yaml"), at("good.yaml")}, 1, "", []string{at("nope.yaml") + ":1:1: there is no such file or directory"}},
		"one_that_is_too_large":       {[]string{at("large.yaml")}, 1, "", []string{"large.yaml:1:1: the file is larger than 1048576 bytes"}},
		"one_that_has_no_end":         {[]string{"/dev/zero"}, 1, "", []string{"/dev/zero:1:1: the file is larger"}},
		"no_file":                     {nil, 2, "", []string{"name the files", "See `netguard policy validate --help`"}},
		"a_wrong_output":              {[]string{at("good.yaml"), "-o", "table"}, 2, "", []string{"text, json, yaml", "See"}},
		"a_path_through_a_file":       {[]string{at("good.yaml/x")}, 1, "", []string{"good.yaml/x:1:1: it cannot be read: not a directory"}},
		"a_file's_name_with_controls": {[]string{"\x1b[2J"}, 1, "", []string{`\x1b[2J:1:1: there is no such file`}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := netguard(t, append([]string{"policy", "validate"}, test.args...)...)
			if code != test.code || stdout != test.stdout {
				t.Errorf("%d %q instead of %d %q", code, stdout, test.code, test.stdout)
			}
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			if stderr == "" {
				lines = nil
			}
			if len(lines) != len(test.stderr) || strings.Contains(stderr, "\x1b") {
				t.Fatalf("%q instead of %q", lines, test.stderr)
			}
			for i, part := range test.stderr {
				if !strings.Contains(lines[i], part) {
					t.Errorf("%q instead of %q", lines[i], part)
				}
			}
		})
	}
	t.Run("what_keeps_an_agent_from_reading_a_directory", func(t *testing.T) {
		dir := policyDir(t, map[string]string{"good.yaml": goodPolicy})
		if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(filepath.Join(dir, "fifo.yml"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("nowhere", filepath.Join(dir, "link.yaml")); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := netguard(t, "policy", "validate", dir)
		want := "DIR/fifo.yml:1:1: it is not a regular file: move it out of the policy directory\n" +
			"DIR/link.yaml:1:1: there is no such file or directory: is the name right?\n" +
			"DIR/sub.yaml:1:1: it is not a regular file: move it out of the policy directory\n"
		if code != 1 || inDir(dir, stderr) != want {
			t.Errorf("%d %s", code, stderr)
		}
	})
	t.Run("more_files_than_an_agent_reads", func(t *testing.T) {
		dir := t.TempDir()
		for i := range control.MaxPlanFiles + 1 {
			if err := os.WriteFile(filepath.Join(dir, strings.Repeat("x", i%100+1)+string(rune('a'+i/100))+".yaml"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		code, _, stderr := netguard(t, "policy", "validate", dir)
		if code != 1 || !strings.Contains(stderr, ":1:1: it has 1001 policy files: an agent reads at most 1000") {
			t.Errorf("%d %s", code, stderr)
		}
	})
}

func TestValidate_for_machines(t *testing.T) {
	dir := policyDir(t, map[string]string{"good.yaml": goodPolicy, "bad.yaml": badPolicy})
	code, stdout, stderr := netguard(t, "policy", "validate", dir, filepath.Join(dir, "nope.yaml"), "-o", "json")
	if code != 1 || stderr != "" {
		t.Errorf("%d %s", code, stderr)
	}
	golden(t, "validate_json", inDir(dir, stdout))
	code, stdout, _ = netguard(t, "policy", "validate", filepath.Join(dir, "good.yaml"), "-o", "json")
	var v validation
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != 0 || !v.Valid || v.Files[0].Policies[0] != "db" {
		t.Errorf("%d %s %v", code, stdout, err)
	}
}

func TestValidate_standard_input(t *testing.T) {
	t.Run("is_read_once", func(t *testing.T) {
		cmd := command(t, "policy", "validate", "-", "-")
		cmd.Stdin = strings.NewReader(badPolicy)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 {
			t.Error(err)
		}
		if lines := strings.Split(stderr.String(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "<stdin>:4:5: ") {
			t.Errorf("%q", lines)
		}
	})
	t.Run("on_which_nobody_writes_can_be_interrupted", func(t *testing.T) {
		cmd := command(t, "policy", "validate", "/dev/zero", "-")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Once this is taken, it reads, or will.
		if _, err := in.Write(make([]byte, 1<<16+1)); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	})
}

// TestValidate_a_pipe_that_nobody_writes: an interrupt ends the wait for a writer.
func TestValidate_a_pipe_that_nobody_writes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"policy", "validate", name}, io.Discard, io.Discard) }()
	select {
	case code := <-ended:
		if code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
	// Whatever still opens the pipe ends with a writer.
	if f, err := os.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
		f.Close()
	}
}
