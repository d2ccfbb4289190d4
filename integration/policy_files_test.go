package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
	"netguard/netpolicy"
)

// trio is a project of three on a network, with somebody else's container.
type trio struct{ web, api, db, other *guest }

var trioServices = []string{"tcp/80", "udp/53"}

func newTrio(t *testing.T, e *Engine) trio {
	t.Helper()
	e.Network("net", Subnet("198.18.60.0/24"), Subnet("fd00:60::/64"))
	return trio{
		web:   welcome(t, e, "web", "net", trioServices, Service("shop", "web")),
		api:   welcome(t, e, "api", "net", trioServices, Service("shop", "api")),
		db:    welcome(t, e, "db", "net", trioServices, Service("shop", "db")),
		other: welcome(t, e, "other", "net", trioServices, Service("blog", "db")),
	}
}

// all is every connection among them; open ones are named as "web>db".
func (c trio) all(closed ...string) []*knock {
	guests := []*guest{c.web, c.api, c.db, c.other}
	var all []*knock
	for _, from := range guests {
		for _, to := range guests {
			if from != to {
				all = append(all, from.to(!slices.Contains(closed, from.Name+">"+to.Name), to, trioServices...)...)
			}
		}
	}
	return all
}

const (
	dbPolicy  = "name: db\nselect: {project: shop, service: db}\ningress: [{from: [{service: api}]}]\n"
	webPolicy = "name: web\nselect: {project: shop, service: web}\negress: []\n"
	apiPolicy = "name: api\nselect: {project: shop, service: api}\ningress: []\n"
)

// faultyFiles are one for each kind of fault, with the place of the first.
func faultyFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../netpolicy/testdata/faults/*.yaml")
	if err != nil || len(names) < 10 {
		t.Fatalf("%d files with faults, %v", len(names), err)
	}
	files := map[string]string{
		"misspelt_key":     "name: db\nselect: {project: shop, service: db}\ningres: []\n",
		"misspelt_select":  "name: db\nselekt: {project: shop, service: db}\ningress: []\n",
		"impossible_port":  strings.Replace(dbPolicy, "}]}]", "}], ports: [tcp/70000]}]", 1),
		"bad_cidr":         strings.Replace(dbPolicy, "{service: api}", "{cidr: 10.0.0.0/33}", 1),
		"taken_name":       dbPolicy + "---\n" + dbPolicy,
		"two_documents":    dbPolicy + "---\n" + strings.Replace(dbPolicy, "ingress", "egres", 1),
		"null_list":        "name: db\nselect: {project: shop, service: db}\ningress:\n",
		"not_UTF-8":        "name: db\xff\xfe\nselect: {}\n",
		"too_large":        dbPolicy + strings.Repeat("# words\n", netpolicy.MaxFileBytes/8+1),
		"an_unknown_proto": strings.Replace(dbPolicy, "}]}]", "}], ports: [http/80]}]", 1),
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(name), ".yaml")] = string(raw)
	}
	return files
}

func finding(s control.Status, file string) string {
	i := slices.IndexFunc(s.Findings, func(f string) bool { return strings.Contains(f, file) })
	if i < 0 {
		return ""
	}
	return s.Findings[i]
}

// TestBadPolicyFiles: nothing that was enforced is lost, other files count, and
// the operator is told where the fault is.
func TestBadPolicyFiles(t *testing.T) {
	t.Parallel()
	e := Start(t)
	c := newTrio(t, e)
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, 4)
	t.Run("all_is_open_before", func(t *testing.T) { mustKnock(t, c.all()) })
	dbClosed := []string{"web>db", "other>db"}
	webClosed := []string{"web>api", "web>db", "web>other"}
	place := regexp.MustCompile(`db\.yaml:\d+:\d+: `)
	files := faultyFiles(t)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			book.enact(t, map[string]string{"db.yaml": dbPolicy})
			s := book.enact(t, map[string]string{"db.yaml": files[name], "web.yaml": webPolicy})
			f := finding(s, "db.yaml")
			if !place.MatchString(f) || !strings.Contains(f, "what it said before stays in force") {
				t.Errorf("the finding does not say where the fault is and what holds: %q of %q", f, s.Findings)
			}
			mustKnock(t, c.all(append(dbClosed, webClosed...)...))
			a := book.a.For(t)
			r := a.CLI("policy", "validate", filepath.Join(a.PolicyDir, "db.yaml"))
			if r.Code != 1 || !place.MatchString(r.Stderr) {
				t.Errorf("validate: %s", r)
			}
			if r := a.CLI("policy", "validate", filepath.Join(a.PolicyDir, "web.yaml")); r.Code != 0 {
				t.Errorf("validate of the good one: %s", r)
			}
			if r := a.CLI("policy", "plan", "--policy-dir", a.PolicyDir); r.Code != 1 {
				t.Errorf("plan: %s", r)
			}
		})
	}
	t.Run("a_mended_file_counts", func(t *testing.T) {
		if s := book.enact(t, map[string]string{"db.yaml": strings.Replace(dbPolicy, "api", "web", 1)}); len(s.Findings) > 0 {
			t.Errorf("findings: %q", s.Findings)
		}
		mustKnock(t, c.all("api>db", "other>db"))
	})
	t.Run("a_new_file_with_a_fault_closes_whom_it_is_about_and_nobody_else", func(t *testing.T) {
		s := book.enact(t, map[string]string{"api.yaml": apiPolicy + "typo: 1\n", "web.yaml": webPolicy})
		if f := finding(s, "api.yaml"); !strings.Contains(f, "isolated until it is mended") {
			t.Errorf("the finding: %q", f)
		}
		mustKnock(t, c.all(append(webClosed, "api>db", "api>other", "api>web", "db>api", "other>api")...))
		a := book.a.For(t)
		if r := a.CLI("status", "api"); r.Code != 1 || !strings.Contains(r.Stdout, "api.yaml") || !strings.Contains(r.Stdout, "closed: ") || strings.Contains(r.Stdout, " open") {
			t.Errorf("status: %s", r)
		}
		i := slices.IndexFunc(s.Endpoints, func(e control.Endpoint) bool { return e.Container == "api" })
		if e := s.Endpoints[i]; len(e.Policy.Faults) != 1 || !strings.Contains(e.Reason, "closed both ways: policy api in ") {
			t.Errorf("api is %+v", e)
		}
		if r := a.CLI("status", "db"); r.Code != 0 {
			t.Errorf("status of another: %s", r)
		}
	})
	t.Run("a_new_file_of_which_nobody_knows_whom_it_is_about_changes_nothing_and_says_so", func(t *testing.T) {
		book.enact(t, map[string]string{"db.yaml": dbPolicy}) // what it was is over
		s := book.enact(t, map[string]string{"api.yaml": strings.Replace(apiPolicy, "select", "selekt", 1), "db.yaml": dbPolicy})
		if f := finding(s, "api.yaml"); !strings.Contains(f, "nobody is isolated by it") {
			t.Errorf("the finding: %q", f)
		}
		mustKnock(t, c.all(dbClosed...))
	})
	t.Run("a_new_file_closes_whom_any_faulty_version_of_it_was_about_until_it_is_mended", func(t *testing.T) {
		apiAlone := []string{"api>db", "api>other", "api>web", "db>api", "other>api", "web>api"}
		otherAlone := []string{"other>web", "other>api", "other>db", "web>other", "api>other", "db>other"}
		both := append(slices.Clone(apiAlone), otherAlone...)
		about := func(who string) string {
			return "name: new\nselect: " + who + "\ningres: []\n"
		}
		unreadable := strings.Replace(about("{service: api}"), "select", "selekt", 1)
		for _, edit := range []struct {
			text   string
			closed []string
		}{
			{about("{project: shop, service: api}"), apiAlone},
			{about("{project: blog, service: db}"), both},
			{unreadable, both},
			{"name: [", both},
		} {
			s := book.enact(t, map[string]string{"new.yaml": edit.text})
			if f := finding(s, "new.yaml"); !strings.Contains(f, "isolated until it is mended or removed") {
				t.Errorf("the finding: %q", f)
			}
			mustKnock(t, c.all(edit.closed...))
		}
		// To others: a name in it is free, and they are not held up.
		book.enact(t, map[string]string{"new.yaml": "name: [", "web.yaml": strings.Replace(webPolicy, "name: web", "name: new", 1)})
		mustKnock(t, c.all(append(both, webClosed...)...))
		book.enact(t, map[string]string{"new.yaml": strings.Replace(about("{service: x}"), "ingres", "ingress", 1)})
		mustKnock(t, c.all())
		book.enact(t, map[string]string{"new.yaml": about("{project: shop, service: api}")})
		mustKnock(t, c.all())
		book.enact(t, map[string]string{})
		book.enact(t, map[string]string{"new.yaml": unreadable})
		mustKnock(t, c.all())
	})
	t.Run("a_file_that_is_not_one_is_about_nobody_and_keeps_none_from_being_read", func(t *testing.T) {
		book.enact(t, map[string]string{"db.yaml": dbPolicy})
		dir := filepath.Join(book.a.PolicyDir, "dir.yaml")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		s := book.enact(t, map[string]string{"db.yaml": dbPolicy, "web.yaml": webPolicy})
		if f := finding(s, "dir.yaml"); !strings.Contains(f, "not a regular file") {
			t.Errorf("the finding: %q", f)
		}
		mustKnock(t, c.all(append(webClosed, dbClosed...)...))
	})
	t.Run("a_directory_that_is_gone_changes_nothing", func(t *testing.T) {
		book.enact(t, map[string]string{"db.yaml": dbPolicy})
		away := book.a.PolicyDir + ".away"
		if err := os.Rename(book.a.PolicyDir, away); err != nil {
			t.Fatal(err)
		}
		book.await(t, "it is reported", func(s control.Status) bool { return finding(s, "is gone") != "" })
		mustKnock(t, c.all(dbClosed...))
		if err := os.Rename(away, book.a.PolicyDir); err != nil {
			t.Fatal(err)
		}
		book.await(t, "it is back", func(s control.Status) bool { return len(s.Findings) == 0 })
		mustKnock(t, c.all(dbClosed...))
	})
}

// TestColdStartWithBadPolicyFiles: an agent that starts has nothing from before.
func TestColdStartWithBadPolicyFiles(t *testing.T) {
	t.Parallel()
	e := Start(t)
	c := newTrio(t, e)
	bad := dbPolicy + "ingres: []\n"
	a := e.NewAgent(Policy("db.yaml", bad), Policy("web.yaml", webPolicy))
	a.Start()
	book := newRulebook(e, a)
	alone := []string{"web>db", "api>db", "other>db", "db>web", "db>api", "db>other", "web>api", "web>other"}
	t.Run("isolates_whom_it_selects", func(t *testing.T) {
		book.files = map[string]string{"db.yaml": bad, "web.yaml": webPolicy}
		book.enact(t, book.files)
		mustKnock(t, c.all(alone...))
		if r := a.For(t).CLI("status", "db"); r.Code != 1 || !strings.Contains(r.Stdout, "db.yaml") {
			t.Errorf("status: %s", r)
		}
		if r := a.For(t).CLI("status", "api"); r.Code != 0 {
			t.Errorf("status of another: %s", r)
		}
	})
	for name, text := range map[string]string{
		"misspelt_select": "name: db\nselekt: {service: db}\ningress: []\n",
		"unclosed":        "name: db\nselect: {service: db\n",
		"too_large":       string(bytes.Repeat([]byte("#"), netpolicy.MaxFileBytes+1)),
	} {
		t.Run("refuses_with_"+name, func(t *testing.T) {
			// Not for the subtest: the agent outlives it.
			a.Stop()
			a.WritePolicy("db.yaml", text)
			a.Launch()
			r := a.Process().Wait()
			if r.Code == 0 || !strings.Contains(r.Stderr, "db.yaml") || !strings.Contains(r.Stderr, "mend or remove") {
				t.Errorf("the agent ended with %s", r)
			}
			// What the agent before it enforced is there still.
			mustKnock(t, c.all(alone...))
			a.WritePolicy("db.yaml", bad)
			a.Start()
		})
	}
	t.Run("and_mending_opens", func(t *testing.T) {
		book.enact(t, map[string]string{"db.yaml": dbPolicy})
		mustKnock(t, c.all("web>db", "other>db"))
	})
}
