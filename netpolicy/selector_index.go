package netpolicy

import "slices"

// selectorIndex finds the selectors that may fit an endpoint without asking all of them.
type selectorIndex struct {
	byName  map[[2]string][]*group // by project and service, one of which may be ""
	byLabel map[string][]*group    // of those that name neither: by one label's key and value
	rest    []*group
}

func (x *selectorIndex) add(g *group) {
	s := g.sel
	switch {
	case s.project != "" || s.service != "":
		if x.byName == nil {
			x.byName = map[[2]string][]*group{}
		}
		key := [2]string{s.project, s.service}
		x.byName[key] = append(x.byName[key], g)
	case slices.ContainsFunc(s.labels, func(l labelMatch) bool { return !l.present }):
		l := s.labels[slices.IndexFunc(s.labels, func(l labelMatch) bool { return !l.present })]
		if x.byLabel == nil {
			x.byLabel = map[string][]*group{}
		}
		x.byLabel[l.key+"\x00"+l.value] = append(x.byLabel[l.key+"\x00"+l.value], g)
	default:
		x.rest = append(x.rest, g)
	}
}

// each calls f for the group of each selector that fits an endpoint, once.
func (x *selectorIndex) each(e *Endpoint, f func(*group)) {
	var found []*group
	ask := func(all []*group) {
		for _, g := range all {
			if g.sel.Matches(e) && (len(e.Shared) == 0 || !slices.Contains(found, g)) {
				if len(e.Shared) > 0 {
					found = append(found, g)
				}
				f(g)
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
