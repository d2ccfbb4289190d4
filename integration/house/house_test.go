// Package house holds the rule of the house: who may import whom.
//
//	cmd -> agent -> drivers -> {netpolicy, shaper}
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "netguard"

// known is what a pure package may use of the standard library and of others:
// nothing that reads a file, a clock, the network or the kernel.
var known = strings.Fields(`
bytes cmp container/heap crypto/sha256 encoding/... errors fmt hash/... io iter maps math/... net/netip path
regexp slices sort strconv strings text/... unicode/...
go.yaml.in/yaml/v4/...`)

// strictYAML walks what people write, for policy and for the configuration.
const strictYAML = "netguard/internal/strictyaml"

// labels is the registry of labels, which names them for all.
const labels = "netguard/internal/label"

// plain makes the text of others harmless to print.
const plain = "netguard/internal/plain"

// differing finds what differs between two lists.
const differing = "netguard/internal/changed"

type rule struct {
	says string
	// about are the packages that the rule is about, except those of but.
	about, but []string
	// refused are the imports that are refused, except those of unless; with only, those
	// that are not among allowed.
	refused []string
	unless  []string
	only    bool
	allowed []string
	// tests are bound by the rule as well.
	tests bool
}

var rules = []rule{
	{
		says:  "policy is pure: it knows neither the shaper nor Docker nor the kernel",
		about: []string{"netguard/netpolicy"},
		only:  true, allowed: append([]string{strictYAML, labels, plain, differing}, known...),
	},
	{
		says:  "what policy and the shaper use for YAML, labels and text is pure, and knows nobody",
		about: []string{strictYAML, labels, plain},
		only:  true, allowed: known,
	},
	{
		says:  "what finds differences knows nobody",
		about: []string{differing},
		only:  true, allowed: append([]string{"reflect"}, known...),
	},
	{
		says:  "the shaper is pure: it knows neither policy nor Docker nor the kernel",
		about: []string{"netguard/shaper"},
		only:  true, allowed: append([]string{labels, plain}, known...),
	},
	{
		says:    "drivers know what they carry out, and nothing above",
		about:   []string{"netguard/netpolicy/...", "netguard/shaper/..."},
		refused: []string{"netguard/agent/...", "netguard/cmd/..."},
	},
	{
		says:    "the drivers of policy know nothing of the shaper",
		about:   []string{"netguard/netpolicy/..."},
		refused: []string{"netguard/shaper/..."},
	},
	{
		says:    "the drivers of the shaper know nothing of policy",
		about:   []string{"netguard/shaper/..."},
		refused: []string{"netguard/netpolicy/..."},
	},
	{
		says:    "the wanted state knows neither who carries it out nor who tells of it",
		about:   []string{"netguard/agent/desired", "netguard/agent/endpoint"},
		refused: []string{"netguard/agent/reconcile", "netguard/agent/status", "netguard/agent/refusals", "netguard/agent/control/...", "netguard/agent/events", "netguard/shaper/tc", "log/slog", "os", "context"},
	},
	{
		says:    "the loop knows nobody who reads its state",
		about:   []string{"netguard/agent/reconcile"},
		refused: []string{"netguard/agent", "netguard/agent/status", "netguard/agent/refusals", "netguard/agent/events", "github.com/...", "golang.org/..."},
	},
	{
		says:    "Docker's client is behind agent/docker",
		about:   []string{"netguard/..."},
		but:     []string{"netguard/agent/docker", "netguard/integration/..."},
		refused: []string{"github.com/docker/...", "github.com/moby/..."},
	},
	{
		says:    "BPF is behind netpolicy/guard/checksum",
		about:   []string{"netguard/..."},
		but:     []string{"netguard/netpolicy/guard/checksum", "netguard/integration/..."},
		refused: []string{"github.com/cilium/ebpf/..."},
	},
	{
		says:    "pictures are drawn by the benchmark's command alone",
		about:   []string{"netguard/..."},
		but:     []string{"netguard/integration/scale/draw"},
		refused: []string{"gonum.org/..."},
		tests:   true,
	},
	{
		says:    "commands use the agent, not the other way round",
		about:   []string{"netguard/..."},
		but:     []string{"netguard/cmd/..."},
		refused: []string{"netguard/cmd/..."},
	},
	{
		says:    "only what writes to the kernel has a hook for faults",
		about:   []string{"netguard/..."},
		but:     []string{"netguard/netpolicy/iptables", "netguard/netpolicy/guard", "netguard/shaper/tc"},
		refused: []string{"netguard/internal/fault"},
	},
	{
		says:    "nobody leans on the integration tests",
		about:   []string{"netguard/..."},
		but:     []string{"netguard/integration/..."},
		refused: []string{"netguard/integration/..."},
	},
	{
		says:    "nor do the tests of others, but on the attacks",
		about:   []string{"netguard/..."},
		but:     []string{"netguard/integration/..."},
		refused: []string{"netguard/integration/..."},
		unless:  []string{"netguard/integration/attack"},
		tests:   true,
	},
}

// matches tells whether an import path is one of the patterns; p/... is p and
// all below it.
func matches(importPath string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if parent, ok := strings.CutSuffix(pattern, "/..."); ok {
			return importPath == parent || strings.HasPrefix(importPath, parent+"/")
		}
		return importPath == pattern
	})
}

func (r rule) breach(p pkg) []string {
	if !matches(p.ImportPath, r.about) || matches(p.ImportPath, r.but) {
		return nil
	}
	imports := p.Imports
	if r.tests {
		imports = slices.Concat(imports, p.TestImports, p.XTestImports)
	}
	var bad []string
	for _, i := range imports {
		if matches(i, r.refused) && !matches(i, r.unless) || r.only && !matches(i, r.allowed) {
			bad = append(bad, i)
		}
	}
	return bad
}

// pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v\n%s", err, &stderr)
	}
	var all []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("read list of packages: %v", err)
		}
		all = append(all, p)
	}
}

func TestHouse(t *testing.T) {
	packages := list(t)
	for _, r := range rules {
		t.Run(r.says, func(t *testing.T) {
			bound := 0
			for _, p := range packages {
				if matches(p.ImportPath, r.about) && !matches(p.ImportPath, r.but) {
					bound++
				}
				for _, bad := range r.breach(p) {
					t.Errorf("%s imports %s", p.ImportPath, bad)
				}
			}
			if bound == 0 {
				t.Errorf("the rule is about nobody: %s are gone", r.about)
			}
		})
	}
}

// TestFaults looks that what is built without a tag has nothing of the injection of
// faults in it.
func TestFaults(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.GoFiles}} {{.Imports}}", module+"/internal/fault").Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != "[doc.go off.go] []" {
		t.Errorf("%s, %v", got, err)
	}
}

// TestRules breaks each rule, so that none is one that nobody can break.
func TestRules(t *testing.T) {
	breaches := map[string]pkg{
		"policy that reads files":                      {ImportPath: "netguard/netpolicy", Imports: []string{"os"}},
		"policy that dials":                            {ImportPath: "netguard/netpolicy", Imports: []string{"net"}},
		"policy that knows its driver":                 {ImportPath: "netguard/netpolicy", Imports: []string{"netguard/netpolicy/iptables"}},
		"policy that knows the shaper":                 {ImportPath: "netguard/netpolicy", Imports: []string{"netguard/shaper"}},
		"a walk of YAML that reads files":              {ImportPath: strictYAML, Imports: []string{"os"}},
		"a walk of YAML that knows policy":             {ImportPath: strictYAML, Imports: []string{"netguard/netpolicy"}},
		"what finds differences and knows Docker":      {ImportPath: differing, Imports: []string{"netguard/agent/docker"}},
		"a shaper that knows policy":                   {ImportPath: "netguard/shaper", Imports: []string{"netguard/netpolicy"}},
		"a shaper that knows the kernel":               {ImportPath: "netguard/shaper", Imports: []string{"github.com/vishvananda/netlink"}},
		"a shaper that looks at the clock":             {ImportPath: "netguard/shaper", Imports: []string{"time"}},
		"a driver that knows the agent":                {ImportPath: "netguard/shaper/tc", Imports: []string{"netguard/agent/docker"}},
		"a policy driver that shapes":                  {ImportPath: "netguard/netpolicy/guard", Imports: []string{"netguard/shaper/tc"}},
		"a shaping driver that filters":                {ImportPath: "netguard/shaper/tc", Imports: []string{"netguard/netpolicy"}},
		"an agent that speaks Docker":                  {ImportPath: "netguard/agent", Imports: []string{"github.com/docker/docker/client"}},
		"an agent that speaks moby":                    {ImportPath: "netguard/agent", Imports: []string{"github.com/moby/moby/client"}},
		"a guard that assembles programs":              {ImportPath: "netguard/netpolicy/guard", Imports: []string{"github.com/cilium/ebpf/asm"}},
		"an agent that knows the command":              {ImportPath: "netguard/agent", Imports: []string{"netguard/cmd/netguard"}},
		"a wanted state that reads a file":             {ImportPath: "netguard/agent/desired", Imports: []string{"os"}},
		"a wanted state that knows who carries it out": {ImportPath: "netguard/agent/desired", Imports: []string{"netguard/agent/reconcile"}},
		"a loop that knows who reads its state":        {ImportPath: "netguard/agent/reconcile", Imports: []string{"netguard/agent/status"}},
		"a loop that speaks to the kernel":             {ImportPath: "netguard/agent/reconcile", Imports: []string{"github.com/vishvananda/netlink"}},
		"an agent that injects faults":                 {ImportPath: "netguard/agent", Imports: []string{"netguard/internal/fault"}},
		"a package that leans on tests":                {ImportPath: "netguard/agent", Imports: []string{"netguard/integration/harness"}},
		"a test that leans on tests":                   {ImportPath: "netguard/agent", XTestImports: []string{"netguard/integration/harness"}},
	}
	for _, name := range slices.Sorted(maps.Keys(breaches)) {
		t.Run("refuse "+name, func(t *testing.T) {
			if !slices.ContainsFunc(rules, func(r rule) bool { return len(r.breach(breaches[name])) > 0 }) {
				t.Error("no rule refuses it")
			}
		})
	}
	for _, fine := range []pkg{
		{ImportPath: "netguard/netpolicy", Imports: []string{"net/netip", "go.yaml.in/yaml/v4", "encoding/json", strictYAML}},
		{ImportPath: "netguard/netpolicy", TestImports: []string{"os", "testing"}},
		{ImportPath: "netguard/netpolicy/iptables", Imports: []string{"netguard/netpolicy", "os", "net"}},
		{ImportPath: "netguard/agent/docker", Imports: []string{"github.com/docker/docker/client"}},
		{ImportPath: "netguard/cmd/netguard", Imports: []string{"netguard/agent"}},
		{ImportPath: "netguard/integration/harness", Imports: []string{"github.com/docker/docker/client"}},
	} {
		t.Run("allow "+path.Base(fine.ImportPath), func(t *testing.T) {
			for _, r := range rules {
				if bad := r.breach(fine); len(bad) > 0 {
					t.Errorf("%q refuses %s", r.says, bad)
				}
			}
		})
	}
}
