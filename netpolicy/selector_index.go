package netpolicy

import "slices"

// selectorIndex finds the selectors that may fit an endpoint without asking all of them.
type selectorIndex struct {
	byName  map[[2]string][]numbered // by project and service, one of which may be ""
	byLabel map[string][]numbered    // of those that name neither: by one label's key and value
	rest    []numbered
}

type numbered struct {
	number int
	sel    Selector
}

func (x *selectorIndex) add(s Selector, number int) {
	n := numbered{number, s}
	switch {
	case s.project != "" || s.service != "":
		if x.byName == nil {
			x.byName = map[[2]string][]numbered{}
		}
		key := [2]string{s.project, s.service}
		x.byName[key] = append(x.byName[key], n)
	case slices.ContainsFunc(s.labels, func(l labelMatch) bool { return !l.present }):
		l := s.labels[slices.IndexFunc(s.labels, func(l labelMatch) bool { return !l.present })]
		if x.byLabel == nil {
			x.byLabel = map[string][]numbered{}
		}
		x.byLabel[l.key+"\x00"+l.value] = append(x.byLabel[l.key+"\x00"+l.value], n)
	default:
		x.rest = append(x.rest, n)
	}
}

// each calls f for each selector that fits an endpoint, once.
func (x *selectorIndex) each(e *Endpoint, f func(number int)) {
	var found []int
	ask := func(all []numbered) {
		for i := range all {
			if n := &all[i]; n.sel.Matches(e) && (len(e.Shared) == 0 || !slices.Contains(found, n.number)) {
				if len(e.Shared) > 0 {
					found = append(found, n.number)
				}
				f(n.number)
			}
		}
	}
	ask(x.rest)
	for i := -1; i < len(e.Shared); i++ {
		w := &e.Workload
		if i >= 0 {
			w = &e.Shared[i]
		}
		names := [][2]string{{w.Project, w.Service}, {w.Project, ""}, {"", w.Service}}
		for j, name := range names {
			if name != ([2]string{}) && !slices.Contains(names[:j], name) {
				ask(x.byName[name])
			}
		}
		if len(x.byLabel) > 0 {
			for key, value := range w.Labels {
				ask(x.byLabel[key+"\x00"+value])
			}
		}
	}
}
