package netpolicy

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Selector selects containers. A container has to fit everything that the selector names. The
// zero Selector fits every container.
type Selector struct {
	project, service string
	container        string // glob
	network          string
	labels           []labelMatch // sorted by key
	build            bool         // nothing but builds
	text             string       // String, if it was worked out already
}

type labelMatch struct {
	key, value string
	present    bool // any value will do
}

// Matches tells whether the selector fits an endpoint: its network, and its container or another
// one in the same network namespace. It does not ask whether the endpoint is managed.
//
// Matches counts all labels, also those of images. It is for rules that close. Opens is for rules
// that allow.
func (s Selector) Matches(e *Endpoint) bool { return s.matches(e, s.fits) }

// Opens is like Matches, but does not count labels that come from an image, or may come from one.
func (s Selector) Opens(e *Endpoint) bool { return s.matches(e, s.fitsOwn) }

func (s Selector) matches(e *Endpoint, fits func(*Workload) bool) bool {
	if s.network != "" && s.network != e.Network || s.build && !e.Build {
		return false
	}
	return fits(&e.Workload) || slices.ContainsFunc(e.Shared, func(w Workload) bool { return fits(&w) })
}

// fitsOwn tells whether the selector fits by labels that may open something.
func (s Selector) fitsOwn(w *Workload) bool {
	return s.fits(w) && !slices.ContainsFunc(s.named(), func(label string) bool { return !w.counts(label) })
}

// labelled tells whether the selector asks for labels.
func (s *Selector) labelled() bool { return s.project != "" || s.service != "" || len(s.labels) > 0 }

// named gives the labels that the selector asks for.
func (s Selector) named() []string {
	var all []string
	if s.project != "" {
		all = append(all, LabelProject)
	}
	if s.service != "" {
		all = append(all, LabelService)
	}
	for _, l := range s.labels {
		all = append(all, l.key)
	}
	return all
}

// counts tells whether a label may open something.
func (w *Workload) counts(label string) bool { return w.Unproven == "" && !w.Inherited[label] }

func (s Selector) fits(w *Workload) bool {
	if s.project != "" && s.project != w.Project || s.service != "" && s.service != w.Service {
		return false
	}
	if s.container != "" && !globMatch(s.container, w.Name) {
		return false
	}
	for _, l := range s.labels {
		if v, ok := w.Labels[l.key]; !ok || !l.present && v != l.value {
			return false
		}
	}
	return true
}

// everyContainer is the zero Selector as a text.
const everyContainer = "every container"

func (s Selector) equal(o Selector) bool { return s.String() == o.String() }

// String writes the selector for people: "project=shop service=api", "every container" for {}.
// Two selectors with the same text are the same.
func (s Selector) String() string {
	if s.text != "" {
		return s.text
	}
	var words []string
	for _, w := range [...]struct{ key, value string }{
		{"project", s.project}, {"service", s.service}, {"container", s.container}, {"network", s.network},
	} {
		if w.value != "" {
			words = append(words, w.key+"="+w.value) // names have no spaces in them
		}
	}
	if s.build {
		words = append(words, "entity=build")
	}
	for _, l := range s.labels {
		if l.present {
			words = append(words, fmt.Sprintf("label %q", l.key))
		} else {
			words = append(words, fmt.Sprintf("label %q=%q", l.key, l.value))
		}
	}
	if len(words) == 0 {
		return everyContainer
	}
	return strings.Join(words, " ")
}

// globMatch tells whether a pattern fits the whole name. checkGlob has accepted the pattern.
func globMatch(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// checkGlob refuses a pattern that cannot be read, or that no name of a container can fit. Its
// bound on the length also bounds the cost of matching.
func checkGlob(pattern string) error {
	switch {
	case len(pattern) > maxName:
		return fmt.Errorf("pattern of %d bytes: at most %d are read", len(pattern), maxName)
	case strings.HasPrefix(pattern, "/"):
		return fmt.Errorf("pattern %q: write the name without the / at its start", clip(pattern))
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("pattern %q cannot be read: a [ has no ], or a \\ stands at the end", clip(pattern))
	}
	if i := strings.IndexFunc(pattern, func(r rune) bool { return !nameRune(r) && !strings.ContainsRune(`*?[]^\`, r) }); i >= 0 {
		return fmt.Errorf("pattern %q: no container's name has %q in it", clip(pattern), firstRune(pattern[i:]))
	}
	return nil
}

// checkName refuses what is not the name of a project, a service or a network.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("it is empty: write a name, or leave the key out")
	case len(name) > maxName:
		return fmt.Errorf("a name of %d bytes: at most %d are read", len(name), maxName)
	case strings.ContainsAny(name, "*?["):
		return fmt.Errorf("%q is a pattern: only container takes one", clip(name))
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !nameRune(r) }); i >= 0 {
		return fmt.Errorf("%q: a name is letters, digits, and . _ -, without %q", clip(name), firstRune(name[i:]))
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
}

func firstRune(s string) string {
	for _, r := range s {
		return string(r)
	}
	return ""
}
