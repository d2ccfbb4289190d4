package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/internal/asroot"
)

// envMain makes the test's binary the command itself, in a process that signals
// can be sent to.
const envMain = "NETGUARD_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(envMain) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

type source func(context.Context) (control.Status, error)

func (f source) Status(ctx context.Context) (control.Status, error) { return f(ctx) }

func always(s control.Status) source {
	return func(context.Context) (control.Status, error) { return s, nil }
}

// serve answers at a socket until the test ends, and returns the socket.
func serve(t *testing.T, src control.Source, change ...func(*control.Server)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "ng.sock")
	server := control.NewServer(socket, src, "v1", slog.New(slog.DiscardHandler))
	for _, c := range change {
		c(server)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	select {
	case <-server.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return socket
}

func netguard(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "netguard.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExitCodes(t *testing.T) {
	fine, bad := serve(t, always(healthy())), serve(t, always(sick()))
	failing := serve(t, source(func(context.Context) (control.Status, error) { return control.Status{}, errors.New("netlink is gone") }))
	nobody := filepath.Join(t.TempDir(), "nobody.sock")
	broken := file(t, "socket: /run/x.sock\nlimit: 3\n")
	for name, test := range map[string]struct {
		args   []string
		code   int
		stderr string // a part of it; "" is nothing at all
	}{
		"fine":                        {[]string{"status", "--socket", fine}, 0, ""},
		"fine_by_name":                {[]string{"status", "shop-db-1", "--socket", fine}, 0, ""},
		"unmanaged_is_as_declared":    {[]string{"status", "pihole", "--socket", fine}, 0, ""},
		"others_are_wrong":            {[]string{"status", "attacker", "--socket", bad}, 0, ""},
		"wrong_ones_without_names":    {[]string{"status", "--socket", bad}, 0, ""},
		"a_wrong_one_by_name":         {[]string{"status", "bad-label", "--socket", bad}, 1, ""},
		"a_wrong_one_in_JSON":         {[]string{"status", "bb", "-o", "json", "--socket", bad}, 1, ""},
		"a_wrong_one_among_others":    {[]string{"status", "attacker", "slow", "--socket", bad}, 1, ""},
		"an_unknown_one":              {[]string{"status", "shop-bd-1", "--socket", fine}, 1, `"shop-bd-1" (did you mean "shop-db-1"?)`},
		"an_unknown_one_with_escapes": {[]string{"status", "\x1b[2J", "--socket", fine}, 1, `\x1b[2J`},
		"the_agent_fails":             {[]string{"status", "--socket", failing}, 1, "netlink is gone"},
		"no_agent":                    {[]string{"status", "--socket", nobody}, 3, nobody + ": the socket is not there: is the agent running?"},
		"no_agent_to_watch":           {[]string{"status", "--watch", "--socket", nobody}, 3, nobody},
		"the_socket_of_the_file":      {[]string{"status", "--config", file(t, "socket: "+nobody)}, 3, nobody},
		"a_flag_wins_over_the_file":   {[]string{"status", "--config", file(t, "socket: "+nobody), "--socket", fine}, 0, ""},
		"a_fault_in_the_file":         {[]string{"status", "--config", broken}, 2, "netguard.yaml:2:1"},
		"a_fault_in_an_unneeded_file": {[]string{"status", "--config", broken, "--socket", fine}, 0, ""},
		"a_file_that_is_not_there":    {[]string{"status", "--config", "/nonexistent/x.yaml"}, 2, "/nonexistent/x.yaml"},
		"a_relative_socket":           {[]string{"status", "--socket", "x.sock"}, 3, "/x.sock: the socket is not there"},
		"a_bad_docker_host":           {[]string{"status", "--socket", fine, "--docker-host", "ftp://x"}, 2, "--docker-host"},
		"an_agent_with_a_bad_file":    {[]string{"agent", "--config", broken}, 2, "netguard.yaml:2:1"},
		"an_agent_without_its_file":   {[]string{"agent", "--config", "/nonexistent/x.yaml"}, 2, "/nonexistent/x.yaml"},
		"an_agent_with_a_bad_flag":    {[]string{"agent", "--config", file(t, ""), "--metrics", "nowhere"}, 2, "--metrics"},
		"an_agent_in_no_mode":         {[]string{"agent", "--mode", "permissive"}, 2, "enforce or monitor"},
		"an_agent_with_arguments":     {[]string{"agent", "start"}, 2, "See `netguard agent --help`"},
		"no_verb":                     {nil, 0, ""},
		"a_wrong_verb":                {[]string{"statsu"}, 2, "Did you mean this?\n  status\n"},
		"a_wrong_flag":                {[]string{"status", "--wide"}, 2, "See `netguard status --help`"},
		"a_wrong_output":              {[]string{"status", "-o", "xml", "--socket", fine}, 2, "table, wide, json, yaml"},
		"an_interval_without_watch":   {[]string{"status", "--interval", "2s", "--socket", fine}, 2, "--watch"},
		"an_interval_that_is_short":   {[]string{"status", "--watch", "--interval", "1ms", "--socket", fine}, 2, "100ms"},
		"a_flag_without_its_value":    {[]string{"status", "--socket"}, 2, "--socket"},
		"version":                     {[]string{"version"}, 0, ""},
		"version_of_something":        {[]string{"version", "x"}, 2, "x"},
		"help":                        {[]string{"status", "--help"}, 0, ""},
		"help_about_a_verb":           {[]string{"help", "status"}, 0, ""},
		"help_about_nothing_known":    {[]string{"help", "statsu"}, 2, "statsu"},
		"completion":                  {[]string{"completion", "bash"}, 0, ""},
		"completion_of_what":          {[]string{"completion"}, 0, ""},
		"completion_of_a_strange_one": {[]string{"completion", "tcsh"}, 2, "tcsh"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := netguard(t, test.args...)
			if code != test.code {
				t.Errorf("exit code %d instead of %d", code, test.code)
			}
			if test.stderr == "" && stderr != "" || !strings.Contains(stderr, test.stderr) || strings.Contains(stderr, "\x1b") {
				t.Errorf("%q instead of %q", stderr, test.stderr)
			}
			if (code == exitFine || test.stderr == "") && stdout == "" {
				t.Error("it says nothing")
			}
		})
	}
}

func TestStatus(t *testing.T) {
	socket := serve(t, always(healthy()))
	t.Run("json_is_the_contract", func(t *testing.T) {
		_, out, _ := netguard(t, "status", "-o", "json", "--socket", socket)
		golden(t, "healthy_json", out)
		var got control.Status
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		want := healthy()
		want.Findings = []string{}
		want.Endpoints[1].Policy.Egress = []string{}
		want.Endpoints[2].Policy = control.Policies{Ingress: []string{}, Egress: []string{}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("yaml_says_the_same", func(t *testing.T) {
		_, out, _ := netguard(t, "status", "-o", "yaml", "--socket", socket)
		golden(t, "healthy_yaml", out)
		_, text, _ := netguard(t, "status", "-o", "json", "--socket", socket)
		var a, b control.Status
		if err := errors.Join(yaml.Unmarshal([]byte(out), &a), json.Unmarshal([]byte(text), &b)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("names_filter", func(t *testing.T) {
		_, out, _ := netguard(t, "status", "sidecar", "--socket", socket)
		if !strings.Contains(out, "shop-web-1") || strings.Contains(out, "shop-db-1") {
			t.Error(out)
		}
	})
	t.Run("says_that_it_could_not_write", func(t *testing.T) {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		for _, output := range []string{"table", "wide", "json", "yaml"} {
			var errs bytes.Buffer
			if code := run(t.Context(), []string{"status", "-o", output, "--socket", socket}, full, &errs); code != 1 || !strings.Contains(errs.String(), "no space") {
				t.Errorf("%s: %d %s", output, code, errs.String())
			}
		}
	})
	t.Run("a_shell_completes_names", func(t *testing.T) {
		_, out, _ := netguard(t, "__complete", "status", "--socket", socket, "shop-web-1", "")
		if !strings.HasPrefix(out, "pihole\nshop-db-1\nsidecar\n:4\n") {
			t.Error(out)
		}
	})
	t.Run("an_interrupted_question_is_no_unreachable_agent", func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		slow := serve(t, source(func(ctx context.Context) (control.Status, error) {
			interrupt()
			<-ctx.Done()
			return control.Status{}, ctx.Err()
		}))
		var out, errs bytes.Buffer
		if code := run(ctx, []string{"status", "--socket", slow}, &out, &errs); code != exitInterrupted || errs.Len() > 0 {
			t.Errorf("%d %s", code, errs.String())
		}
	})
}

func TestHelp(t *testing.T) {
	var teaches func(of *cobra.Command)
	teaches = func(of *cobra.Command) {
		for _, cmd := range of.Commands() {
			if cmd.Name() == "completion" || cmd.Name() == "help" {
				continue
			}
			if cmd.Short == "" || cmd.Example == "" && cmd.Name() != "version" {
				t.Errorf("%s teaches nothing", cmd.CommandPath())
			}
			_, out, _ := netguard(t, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
			for _, flag := range []string{"--config", "--docker-host", "--socket"} {
				if !strings.Contains(out, flag) {
					t.Errorf("%s has no %s", cmd.CommandPath(), flag)
				}
			}
			for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
				if term.Columns(line) > 100 {
					t.Errorf("%s wraps: %s", cmd.CommandPath(), line)
				}
			}
			teaches(cmd)
		}
	}
	teaches(newRoot(io.Discard, io.Discard))
}

// What is named on the command line is where the shell would find it.
func TestRelativePaths(t *testing.T) {
	socket := serve(t, always(healthy()))
	dir := policyDir(t, map[string]string{"db.yaml": goodPolicy})
	at := t.TempDir()
	for name, to := range map[string]string{"s.sock": socket, "policies": dir, "c.yaml": file(t, "socket: "+socket+"\n")} {
		if err := os.Symlink(to, filepath.Join(at, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(at)
	for _, c := range []struct {
		args string
		code int
		says string // on the standard error
	}{
		{"status --socket s.sock", 0, ""},
		{"status --socket ./s.sock", 0, ""},
		{"status --config ./c.yaml", 0, ""},
		{"status --config " + filepath.Base(file(t, "socket: s.sock\n")), 2, "no such file"},
		{"status --socket s.sock/", 2, "this is a directory"},
		{"policy validate policies ./policies", 0, ""},
		// It gets as far as its socket.
		{"agent --config ./c.yaml --policy-dir ./policies --socket /proc/none/s.sock", 1, "/proc/none"},
	} {
		t.Run(c.args, func(t *testing.T) {
			if strings.HasPrefix(c.args, "agent ") {
				asroot.Only(t)
			}
			code, _, stderr := netguard(t, strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(stderr, c.says) || c.says == "" && stderr != "" || strings.Contains(stderr, "absolute") {
				t.Errorf("%d %s", code, stderr)
			}
		})
	}
}
