package config

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netguard/netpolicy/guard"
	"netguard/shaper"
)

var update = flag.Bool("update", false, "write the golden files")

const full = `# everything that can be said
networks:
  exclude: [ci-*, "lab?"]
  unguarded: [bare]
  uplinks: [eth0]
admission: open
guard: {storm: 7, connections: 8, allow: [192.0.2.0/24], dhcp_servers: [lab], fragments: pass, fragment_rate: 9}
limits:
  default: {ingress: 100mbit, egress: 50mbit}
  max:
    egress: 1gbit
allow_opt_out: true
admit_unknown: true
swarm_ports: open
trust_image_labels: ["registry.example/*", "backup:1.?"]
socket: /run/ng/ng.sock
metrics: ""
docker_host: unix:///run/docker.sock
policy_dir: /srv/policies
log: {level: debug, format: json}
`

func TestParse(t *testing.T) {
	all := Config{
		Exclude: Globs{"ci-*", "lab?"}, Unguarded: Globs{"bare"}, Uplinks: Globs{"eth0"}, AdmissionOpen: true,
		Storm: guard.Storm{Rate: 7, Burst: 14}, Connections: 8, Fragments: FragmentsPass, FragmentRate: 9,
		Claims: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, DHCPServers: Globs{"lab"},
		Limits: shaper.Operator{
			Default: [2]shaper.Rate{100 * shaper.Mbit, 50 * shaper.Mbit},
			Max:     [2]shaper.Rate{0, shaper.Gbit},
		},
		AllowOptOut: true, AdmitUnknown: true, SwarmPortsOpen: true,

		TrustImageLabels: Globs{"registry.example/*", "backup:1.?"},
		Socket:           "/run/ng/ng.sock",
		DockerHost:       "unix:///run/docker.sock",
		PolicyDir:        "/srv/policies",
		Log:              Log{Level: slog.LevelDebug, Format: JSON},
	}
	for name, test := range map[string]struct {
		text string
		want Config
	}{
		"everything":                   {full, all},
		"nothing_gives_the_defaults":   {"", Default()},
		"comments_only":                {"# limits:\n", Default()},
		"headings_without_keys":        {"limits:\n  max:\n  # egress: 1gbit\nnetworks:\n  exclude:\n", Default()},
		"an_empty_mapping":             {"{}\n", Default()},
		"windows_line_ends":            {strings.ReplaceAll(full, "\n", "\r\n"), all},
		"a_document_start":             {"---\n" + full, all},
		"a_byte_order_mark":            {"\ufeff" + full, all},
		"defaults_equal_to_the_maxima": {"limits: {default: {egress: 1gbit}, max: {egress: 1000mbit}}", with(func(c *Config) { c.Limits.Default[1], c.Limits.Max[1] = shaper.Gbit, shaper.Gbit })},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(test.text), "netguard.yaml")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func with(change func(*Config)) Config {
	c := Default()
	change(&c)
	return c
}

// Each testdata/*.yaml holds faults; what the operator reads stands beside it.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(data, filepath.Base(file))
			if err == nil {
				t.Fatal("no fault was found")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "netguard.yaml")

	t.Run("a_missing_default_file_gives_the_defaults", func(t *testing.T) {
		got, err := Load(file, false)
		if diff := cmp.Diff(Default(), got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("a_missing_named_file_is_an_error", func(t *testing.T) {
		if _, err := Load(file, true); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	t.Run("a_fifo_does_not_block", func(t *testing.T) {
		fifo := filepath.Join(dir, "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(fifo, false); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Error(err)
		}
	})
	t.Run("a_file_too_large_is_refused", func(t *testing.T) {
		big := filepath.Join(dir, "big.yaml")
		if err := os.WriteFile(big, bytes.Repeat([]byte("#\n"), MaxBytes), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(big, false); err == nil || !strings.Contains(err.Error(), "larger than") {
			t.Error(err)
		}
	})
	t.Run("faults_carry_the_path", func(t *testing.T) {
		if err := os.WriteFile(file, []byte("sockt: /x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file, false)
		if want := file + `:1:1: there is no key "sockt" at the top: did you mean socket?`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

func TestWith(t *testing.T) {
	set := func(s string) *string { return &s }
	t.Run("flags_win", func(t *testing.T) {
		got, err := Default().With(Overrides{Socket: set("/s"), Metrics: set(""), DockerHost: set("tcp://h:1"), PolicyDir: set("/p")})
		want := with(func(c *Config) { c.Socket, c.Metrics, c.DockerHost, c.PolicyDir = "/s", "", "tcp://h:1", "/p" })
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("flags_not_given_change_nothing", func(t *testing.T) {
		got, err := Default().With(Overrides{})
		if diff := cmp.Diff(Default(), got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("every_faulty_flag_is_named", func(t *testing.T) {
		_, err := Default().With(Overrides{Socket: set("s"), Metrics: set("9477"), DockerHost: set("docker"), PolicyDir: set("p")})
		for _, flag := range []string{"--socket: ", "--metrics: ", "--docker-host: ", "--policy-dir: "} {
			if err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("%s is missing in: %v", flag, err)
			}
		}
	})
}

func TestGlobs(t *testing.T) {
	g := Globs{"ci-*", "lab[0-9]"}
	for name, want := range map[string]bool{"ci-": true, "ci-42": true, "aci-1": false, "lab7": true, "labx": false, "": false} {
		if got := g.Match(name); got != want {
			t.Errorf("Match(%q) = %v", name, got)
		}
	}
}

// What is accepted is valid and what is refused has a place.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a, *a]\n? [x]\n: y\n<<: {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, "f.yaml")
		if err != nil {
			faults, ok := errors.AsType[Faults](err)
			if !ok || len(faults) == 0 {
				t.Fatalf("not Faults: %v", err)
			}
			for _, fault := range faults {
				if fault.Column < 1 && fault.Line > 0 || fault.Text == "" || strings.ContainsAny(fault.Text, "\n\x1b") {
					t.Errorf("fault %q", fault.Error())
				}
			}
			return
		}
		if checkSocket(c.Socket) != nil || checkMetrics(c.Metrics) != nil || checkDockerHost(c.DockerHost) != nil ||
			checkPath(c.PolicyDir) != nil || checkFormat(string(c.Log.Format)) != nil {
			t.Errorf("invalid: %+v", c)
		}
		for _, dir := range shaper.Directions {
			if most := c.Limits.Max[dir]; most != 0 && c.Limits.Default[dir] > most {
				t.Errorf("default above max: %+v", c.Limits)
			}
		}
		for _, g := range c.Exclude {
			if checkGlob(g) != nil {
				t.Errorf("glob %q", g)
			}
		}
	})
}

func TestMatchImage(t *testing.T) {
	for _, test := range []struct {
		pattern, ref string
		want         bool
	}{
		{"registry.example/*", "registry.example/team/app:1", true},
		{"registry.example/*", "registry.example.evil/app:1", false},
		{"registry.example/*", "evil/registry.example/app:1", false},
		{"backup", "backup:1", false},
		{"backup", "backup", true},
		{"backup:1.?", "backup:1.2", true},
		{"backup:1.?", "backup:1.22", false},
		{"b?c", "b/c", true},
		{"app:[0-4]", "app:3", true},
		{"app:[0-4]", "app:5", false},
		{"*", "sha256:0123", true},
		{"app@sha256:*", "app@sha256:0123", true},
	} {
		if got := (Globs{"none", test.pattern}).MatchImage(test.ref); got != test.want {
			t.Errorf("%q fits %q: %v", test.pattern, test.ref, got)
		}
	}
	for _, bad := range []string{`trust_image_labels: [""]`, `trust_image_labels: ["["]`, `trust_image_labels: ["a b"]`} {
		if _, err := Parse([]byte(bad), "bad.yaml"); err == nil || !strings.Contains(err.Error(), "bad.yaml:1:") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
