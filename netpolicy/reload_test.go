package netpolicy

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// texts are files by name, in turns of two.
func texts(namesAndTexts ...string) []Source {
	var all []Source
	for i := 0; i < len(namesAndTexts); i += 2 {
		all = append(all, Source{Name: namesAndTexts[i], Data: []byte(namesAndTexts[i+1])})
	}
	return all
}

// enforced is what a catalog comes to, in short.
func enforced(c Catalog) string {
	words := []string{names(c.Policies())}
	for _, b := range c.Broken() {
		words = append(words, "closed: "+b.Select.String())
	}
	for _, f := range c.Unclear() {
		words = append(words, "unclear: "+f)
	}
	return strings.Join(words, "; ")
}

// badShop and badTwo are about more than badDB.
const (
	badTwo = badDB + "---\nname: api\nselect: {service: api}\ningress: []\n"
	closed = "closed: project=shop service=db"
)

func TestReload(t *testing.T) {
	for name, test := range map[string]struct {
		steps  [][]Source
		want   string
		faults int
	}{
		"a_fault_changes_nothing_that_was_in_force": {
			[][]Source{texts("db.yaml", goodDB), texts("db.yaml", badDB)}, "db", 1},
		"faults_that_follow_each_other_keep_the_last_good_one": {
			[][]Source{texts("db.yaml", goodDB), texts("db.yaml", badDB), texts("db.yaml", badAll), texts("db.yaml", badTwo)}, "db", 1},
		"a_repaired_file_counts_again": {
			[][]Source{texts("db.yaml", goodDB), texts("db.yaml", badDB), texts("db.yaml", goodWeb)}, "web", 0},
		"a_file_that_is_gone_is_gone": {
			[][]Source{texts("db.yaml", goodDB), texts("web.yaml", goodWeb)}, "web", 0},
		"at_a_cold_start_a_fault_closes_whom_it_is_about": {
			[][]Source{texts("db.yaml", badDB)}, "; " + closed, 1},
		"at_a_cold_start_a_file_about_nobody_knows_whom_is_unclear": {
			[][]Source{texts("db.yaml", badAll)}, "; unclear: db.yaml", 1},
		"a_new_file_with_a_fault_closes_whom_it_is_about": {
			[][]Source{texts("web.yaml", goodWeb), texts("web.yaml", goodWeb, "db.yaml", badDB)}, "web; " + closed, 1},
		"and_still_does_when_it_is_edited_into_one_about_nobody_knows_whom": {
			[][]Source{texts("web.yaml", goodWeb), texts("web.yaml", goodWeb, "db.yaml", badDB), texts("web.yaml", goodWeb, "db.yaml", badAll)},
			"web; " + closed + "; unclear: db.yaml", 1},
		"and_when_it_is_edited_again_and_again": {
			[][]Source{texts("db.yaml", badDB), texts("db.yaml", badAll), texts("db.yaml", "["), texts("db.yaml", badAll)}, "; " + closed + "; unclear: db.yaml", 1},
		"and_when_it_is_edited_into_one_about_fewer": {
			[][]Source{texts("db.yaml", badTwo), texts("db.yaml", badDB)}, "; " + closed + "; closed: service=api", 1},
		"and_into_one_about_others": {
			[][]Source{texts("db.yaml", badDB), texts("db.yaml", strings.Replace(badDB, "service: db", "service: x", 1))}, "; " + closed + "; closed: project=shop service=x", 1},
		"until_it_is_mended": {
			[][]Source{texts("db.yaml", badDB), texts("db.yaml", badAll), texts("db.yaml", goodWeb)}, "web", 0},
		"until_it_is_gone": {
			[][]Source{texts("db.yaml", badDB), texts("db.yaml", badAll), nil}, "", 0},
		"until_it_says_nothing": {
			[][]Source{texts("db.yaml", badDB), texts("db.yaml", badAll), texts("db.yaml", "# later\n")}, "", 0},
		"and_after_that_it_is_as_new": {
			[][]Source{texts("db.yaml", badDB), texts("db.yaml", goodWeb), nil, texts("db.yaml", badAll)}, "; unclear: db.yaml", 1},
		"a_file_with_a_fault_that_is_renamed_stays_what_it_was": {
			[][]Source{texts("db.yaml", goodDB), texts("db.yaml", badDB), texts("b.yaml", badDB)}, "db", 1},
		"also_one_that_was_never_good": {
			[][]Source{texts("db.yaml", badDB), texts("db.yaml", badAll), texts("b.yaml", badAll)}, "; " + closed + "; unclear: b.yaml", 1},
		"a_copy_of_a_file_in_force_closes_nobody": {
			[][]Source{texts("db.yaml", goodDB), texts("a.yaml", goodDB, "db.yaml", goodDB)}, "db db", 1},
		"and_counts_when_the_other_is_gone": {
			[][]Source{texts("db.yaml", goodDB), texts("a.yaml", goodDB, "db.yaml", goodDB), texts("a.yaml", goodDB)}, "db", 0},
		"a_file_that_cannot_be_read_keeps_what_it_said": {
			[][]Source{texts("db.yaml", goodDB), {{Name: "db.yaml", Err: errors.New("no")}, texts("web.yaml", goodWeb)[0]}}, "db web", 1},
		"a_new_one_that_cannot_be_read_is_unclear": {
			[][]Source{texts("none.yaml", ""), {{Name: "db.yaml", Err: errors.New("no")}, texts("web.yaml", goodWeb)[0]}}, "web; unclear: db.yaml", 1},

		// Names.
		"a_name_in_a_file_with_faults_is_free": {
			[][]Source{texts("a.yaml", badDB, "z.yaml", goodDB)}, "db; " + closed, 2},
		"a_name_in_a_file_with_a_name_that_is_taken_is_free": {
			[][]Source{texts("a.yaml", goodDB, "b.yaml", goodDB+"---\n"+goodWeb, "z.yaml", goodWeb)},
			"db web; closed: project=shop service=db; closed: project=shop service=web", 1},
		"who_had_a_name_before_keeps_it": {
			[][]Source{texts("z.yaml", goodDB), texts("a.yaml", "name: db\nselect: {service: x}\negress: []\n", "z.yaml", goodDB)}, "db; closed: service=x", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var c Catalog
			for _, step := range test.steps {
				c = c.Reload(step)
			}
			if diff := cmp.Diff(test.want, enforced(c)); diff != "" || len(c.Faults()) != test.faults {
				t.Errorf("%s, faults: %v", diff, c.Faults())
			}
		})
	}
}

// However a file is edited, whom it closed is closed until it has no fault or is
// gone.
func TestReloadLosesNothing(t *testing.T) {
	edits := []string{badDB, badTwo, badAll, "[", goodDB, goodWeb, "", goodDB + "---\n" + badTwo, "name: x\nselect: {}\ningres: []\n"}
	rapid.Check(t, func(t *rapid.T) {
		var c Catalog
		for range rapid.IntRange(1, 8).Draw(t, "edits") {
			next := c.Reload(texts("f.yaml", rapid.SampledFrom(edits).Draw(t, "text"), "other.yaml", "name: other\nselect: {}\negress: []\n"))
			if len(next.Files[0].Faults) > 0 && len(c.Files) > 0 {
				if was, is := enforced(c), enforced(next); !within(c.Broken(), next.Broken()) || names(c.Policies()) != names(next.Policies()) {
					t.Fatalf("it was %q, it is %q", was, is)
				}
			} else if len(next.Files[0].Faults) == 0 && len(next.Broken()) > 0 {
				t.Fatalf("a good file closes %v", next.Broken())
			}
			c = next
		}
	})
}

func within(some, all []Broken) bool {
	has := map[string]bool{}
	for _, b := range all {
		has[b.Select.String()] = true
	}
	for _, b := range some {
		if !has[b.Select.String()] {
			return false
		}
	}
	return true
}

// What a file is said to be about does not grow without end.
func TestReloadIsBounded(t *testing.T) {
	var c Catalog
	for i := range maxBroken/maxDocuments + 2 {
		var text strings.Builder
		for j := range maxDocuments {
			text.WriteString("name: x\nselect: {service: s" + strings.Repeat("x", i) + "-" + strings.Repeat("y", j%100) + strings.Repeat("z", j/100) + "}\n---\n")
		}
		c = c.Reload(texts("f.yaml", text.String()))
	}
	if n := len(c.Broken()); n != maxBroken || len(c.Unclear()) != 1 {
		t.Errorf("%d are closed, unclear: %v", n, c.Unclear())
	}
}

func TestLoses(t *testing.T) {
	for name, test := range map[string]struct {
		before, after []Source
		want          string
	}{
		"nothing":                     {texts("db.yaml", goodDB), texts("db.yaml", goodDB), ""},
		"a_file":                      {texts("db.yaml", goodDB, "web.yaml", goodWeb), texts("web.yaml", goodWeb), "db"},
		"what_an_empty_file_said":     {texts("db.yaml", goodDB), texts("db.yaml", ""), "db"},
		"the_second_half":             {texts("db.yaml", goodDB+"---\n"+goodWeb), texts("db.yaml", goodDB), "web"},
		"nothing_by_a_fault":          {texts("db.yaml", goodDB), texts("db.yaml", badAll), ""},
		"a_file_that_closed":          {texts("db.yaml", badDB), nil, "db.yaml"},
		"nothing_when_that_is_mended": {texts("db.yaml", badDB), texts("db.yaml", goodDB), ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := Load(test.before)
			if got := strings.Join(before.Loses(before.Reload(test.after)), " "); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// A file whose text is as before is not read again, and counts as if it were.
func TestReloadKeepsWhatItRead(t *testing.T) {
	before := Load(texts("a.yaml", goodDB, "b.yaml", goodWeb))
	after := before.Reload(texts("a.yaml", goodDB+"# more\n", "b.yaml", goodWeb))
	if Shared(before.Files[0].Policies, after.Files[0].Policies) || !Shared(before.Files[1].Policies, after.Files[1].Policies) {
		t.Error("one file was changed, and not that one was read")
	}
	twice := texts("a.yaml", goodWeb, "b.yaml", goodDB, "c.yaml", goodDB)
	c := Load(twice)
	want := c.Faults()
	for range 2 { // the name is taken as before
		c = c.Reload(twice)
		if diff := cmp.Diff(want, c.Faults()); len(want) != 1 || diff != "" || enforced(c) != "web db; closed: project=shop service=db" {
			t.Errorf("%s: %s", enforced(c), diff)
		}
	}
	if c = c.Reload(twice[:2]); enforced(c) != "web db" {
		t.Error(enforced(c))
	}
	if c = c.Reload([]Source{twice[0], {Name: "b.yaml", Data: twice[1].Data, Err: errors.New("it cannot be read")}}); len(c.Faults()) != 1 {
		t.Errorf("a file that cannot be read has %d faults", len(c.Faults()))
	}
}
