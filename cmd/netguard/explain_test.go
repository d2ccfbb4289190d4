package main

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/netpolicy"
)

func TestExplain(t *testing.T) {
	socket := servePolicies(t, shop(t))
	for name, test := range map[string]struct {
		args   []string
		code   int
		stdout string // the start of it
		stderr string // a part of it; "" is nothing at all
	}{
		"allowed":                     {[]string{"shop-api-1", "shop-db-1", "tcp/5432"}, 0, "ALLOWED shop-api-1 may reach shop-db-1 ", ""},
		"denied":                      {[]string{"shop-web-1", "shop-db-1", "tcp/5432"}, 1, "DENIED  shop-web-1 may not reach shop-db-1 ", ""},
		"some_of_it_denied":           {[]string{"shop-api-1", "shop-db-1"}, 1, "ALLOWED ", ""},
		"an_address":                  {[]string{"198.51.100.7", "shop-web-1", "tcp/80"}, 0, "ALLOWED 198.51.100.7 ", ""},
		"the_host":                    {[]string{"host", "shop-db-1", "icmp"}, 1, "DENIED  host ", ""},
		"no_way":                      {[]string{"2001:db8::1", "shop-db-1", "icmp"}, 1, "DENIED  2001:db8::1 and shop-db-1 have no addresses of one family", ""},
		"what_nobody_is_about":        {[]string{"host", "198.51.100.7"}, 0, "ALLOWED no container is part of a connection", ""},
		"an_unknown_one":              {[]string{"shop-bd-1", "shop-web-1"}, 1, "", `netguard: "shop-bd-1" is no container and no address, neither host nor external (did you mean "shop-db-1"?)`},
		"an_unknown_one_with_escapes": {[]string{"shop-db-1", "\x1b[2J"}, 1, "", `"\x1b[2J" is no container`},
		"an_empty_one":                {[]string{"", "shop-db-1"}, 1, "", `"" is no container`},
		"a_port_without_protocol":     {[]string{"shop-web-1", "shop-db-1", "5432"}, 2, "", `PROTO/PORT is "5432" has no protocol`},
		"a_port_as_Docker_writes_it":  {[]string{"shop-web-1", "shop-db-1", "5432/tcp"}, 2, "", "write tcp/5432\nSee `netguard policy explain --help`"},
		"no_party":                    {nil, 2, "", "SRC DST [PROTO/PORT]"},
		"one_party":                   {[]string{"shop-web-1"}, 2, "", "SRC DST [PROTO/PORT]"},
		"too_many":                    {[]string{"a", "b", "tcp/1", "tcp/2"}, 2, "", "SRC DST [PROTO/PORT]"},
		"a_wrong_output":              {[]string{"shop-web-1", "shop-db-1", "-o", "wide"}, 2, "", "text, json, yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := netguard(t, append([]string{"policy", "explain", "--socket", socket}, test.args...)...)
			if code != test.code || !strings.HasPrefix(stdout, test.stdout) || test.stdout == "" && stdout != "" {
				t.Errorf("%d %q instead of %d %q", code, stdout, test.code, test.stdout)
			}
			if test.stderr == "" && stderr != "" || !strings.Contains(stderr, test.stderr) || strings.Contains(stderr, "\x1b") {
				t.Errorf("%q instead of %q", stderr, test.stderr)
			}
		})
	}
	t.Run("says_the_same_in_JSON_and_YAML", func(t *testing.T) {
		_, out, _ := netguard(t, "policy", "explain", "shop-api-1", "shop-db-1", "--socket", socket, "-o", "json")
		golden(t, "explain_json", out)
		code, text, _ := netguard(t, "policy", "explain", "shop-api-1", "shop-db-1", "--socket", socket, "-o", "yaml")
		var a, b netpolicy.Explanation
		if err := errors.Join(json.Unmarshal([]byte(out), &a), yaml.Unmarshal([]byte(text), &b)); err != nil || code != 1 {
			t.Fatal(code, err)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("asks_nobody_about_what_it_cannot_read", func(t *testing.T) {
		nobody := filepath.Join(t.TempDir(), "x.sock")
		if code, _, stderr := netguard(t, "policy", "explain", "a", "b", "http", "--socket", nobody); code != 2 || strings.Contains(stderr, nobody) {
			t.Errorf("%d %s", code, stderr)
		}
		if code, _, stderr := netguard(t, "policy", "explain", "a", "b", "tcp/80", "--socket", nobody); code != 3 || !strings.Contains(stderr, nobody) {
			t.Errorf("%d %s", code, stderr)
		}
	})
	t.Run("takes_an_agent's_word_for_what_a_service_is", func(t *testing.T) {
		other := servePolicies(t, refusing{control.ErrBadService})
		if code, _, stderr := netguard(t, "policy", "explain", "a", "b", "tcp/80", "--socket", other); code != 2 || !strings.Contains(stderr, "no service") {
			t.Errorf("%d %s", code, stderr)
		}
	})
	t.Run("says_that_the_agent_has_no_policies", func(t *testing.T) {
		plain := serve(t, always(healthy()))
		if code, _, stderr := netguard(t, "policy", "explain", "a", "b", "--socket", plain); code != 1 || !strings.Contains(stderr, "answers no questions about policies") {
			t.Errorf("%d %s", code, stderr)
		}
	})
	t.Run("a_shell_completes_it", func(t *testing.T) {
		for typed, want := range map[string]string{
			"":              "pihole\nshop-db-1\nshop-web-1\nsidecar\nhost\nexternal\n:4\n",
			"host":          "pihole\nshop-db-1\nshop-web-1\nsidecar\nexternal\n:4\n",
			"shop-db-1":     "pihole\nshop-web-1\nsidecar\nhost\nexternal\n:4\n",
			"a b":           "tcp/\nudp/\nsctp/\nicmp\n:6\n",
			"a b tcp/80":    ":4\n",
			"a b -o":        "text\njson\nyaml\n:4\n",
			"a b tcp/80 -o": "text\njson\nyaml\n:4\n",
		} {
			_, out, _ := netguard(t, append(append([]string{"__complete", "policy", "explain", "--socket", socket}, strings.Fields(typed)...), "")...)
			if !strings.HasPrefix(out, want) {
				t.Errorf("%q: %s", typed, out)
			}
		}
	})
}

// refusing is a PolicySource that has one answer.
type refusing struct{ error }

func (r refusing) Explain(context.Context, string, string, string) (netpolicy.Explanation, error) {
	return netpolicy.Explanation{}, r.error
}

func (r refusing) Plan(context.Context, []netpolicy.Source) (netpolicy.Delta, error) {
	return netpolicy.Delta{}, r.error
}

func TestExplanationText(t *testing.T) {
	explain := func(t *testing.T, src, dst, service string) netpolicy.Explanation {
		t.Helper()
		e, err := shop(t).Explain(t.Context(), src, dst, service)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	strange := netpolicy.Explanation{Note: "a note that is longer than the screen is wide, since somebody had a lot to say about what no rule is about", Answers: []netpolicy.Answer{
		{Allowed: true, Sentence: "\x1b[31mred\x1b[0m\nDENIED  fake " + longWord, Policies: []string{"p\u202e1"}, Rules: []string{"p\x07 ingress[0]"}},
		{Sentence: "nobody decides"},
	}}
	answer := func(allowed bool, src, dst, why string, policies ...string) netpolicy.Answer {
		return netpolicy.Answer{Allowed: allowed, Src: src, Dst: dst, Policies: policies, Sentence: "a may reach b (" + src + " to " + dst + ") by tcp/80: " + why}
	}
	several := []netpolicy.Answer{
		answer(true, "10.0.0.1", "10.0.0.2", "it may", "p"), answer(true, "10.1.0.1", "10.1.0.2", "it may", "p"),
		answer(false, "fd00::1", "fd00::2", "it may", "p"), answer(false, "fd00::3", "fd00::2", "it may", "p"),
		answer(false, "fd00::4", "fd00::2", "it may", "p"), answer(false, "fd00::5", "fd00::2", "it may", "p"),
		answer(false, "fd00::6", "fd00::2", "for another reason", "p"), answer(false, "fd00::7", "fd00::2", "it may", "q"),
		{Src: "10.0.0.1", Dst: "10.0.0.2", Sentence: "no addresses"}, {Src: "10.0.0.1", Dst: "10.0.0.3", Sentence: "no addresses"},
	}
	for name, test := range map[string]struct {
		explanation netpolicy.Explanation
		view        term.View
	}{
		"explain_allowed": {explain(t, "shop-api-1", "shop-db-1", "tcp/5432"), term.View{Width: 100}},
		"explain_denied":  {explain(t, "shop-web-1", "shop-db-1", "tcp/5432"), term.View{Width: 100}},
		"explain_all":     {explain(t, "shop-api-1", "shop-db-1", ""), term.View{Width: 100, Colour: true}},
		"explain_folded":  {netpolicy.Explanation{Answers: several}, term.View{Width: 100}},
		"explain_nothing": {explain(t, "host", "host", ""), term.View{Width: 100}},
		"explain_strange": {strange, term.View{Width: 80}},
	} {
		t.Run(name, func(t *testing.T) {
			text := explanationText(test.explanation, test.view)
			golden(t, name, text)
			for line := range strings.Lines(text) {
				if term.Columns(strings.TrimSuffix(line, "\n")) > test.view.Width && !test.view.Colour && !strings.Contains(line, longWord) {
					t.Errorf("longer than %d columns: %s", test.view.Width, line)
				}
				if strings.HasPrefix(line, "DENIED  fake") || !test.view.Colour && strings.Contains(line, "\x1b") {
					t.Errorf("a stranger's line: %q", line)
				}
			}
		})
	}
}
