package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"netguard/netpolicy"
)

// ErrUnknownContainer says that a name has no endpoint.
var ErrUnknownContainer = errors.New("no endpoint of a container")

// Filter keeps the endpoints of the named containers, or all if there are no names. A name is
// the container's, or that of a container in the same network namespace. If it is neither, it
// is the beginning of an ID. The error is ErrUnknownContainer if a name has no endpoint. What
// the status says of the host stays.
func (s Status) Filter(names []string) (Status, error) {
	if len(names) == 0 {
		return s, nil
	}
	keep := make([]bool, len(s.Endpoints))
	var missing []string
	for _, name := range names {
		found := s.mark(keep, func(e Endpoint) bool {
			plain := strings.TrimPrefix(name, "/") // as `docker inspect` writes it
			return e.Container == plain || slices.Contains(e.SharedBy, plain)
		})
		found = found || name != "" && s.mark(keep, func(e Endpoint) bool {
			return strings.HasPrefix(e.ID, strings.ToLower(name))
		})
		if !found {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return Status{}, s.unknown(missing)
	}
	var kept []Endpoint
	for i, e := range s.Endpoints {
		if keep[i] {
			kept = append(kept, e)
		}
	}
	s.Endpoints = kept
	return s, nil
}

func (s Status) mark(keep []bool, is func(Endpoint) bool) (found bool) {
	for i, e := range s.Endpoints {
		if is(e) {
			keep[i], found = true, true
		}
	}
	return found
}

// unknown makes the error for names that have no endpoint, and says what was probably meant. It
// takes few names: comparing is slow, and nobody reads more.
func (s Status) unknown(names []string) error {
	const most = 3
	if s.Docker.ReadAt.IsZero() && len(s.Endpoints) == 0 {
		return &told{fmt.Sprintf("it is not known whether there is a container %.64q: the agent has not read Docker's containers yet: is dockerd running? try again in a moment", names[0]), ErrUnknownContainer}
	}
	var known []string
	for _, e := range s.Endpoints {
		known = append(append(known, e.Container), e.SharedBy...)
	}
	var texts []string
	for _, name := range names[:min(most, len(names))] {
		text := fmt.Sprintf("%.64q", name)
		if near := netpolicy.Nearest(name, known); near != "" {
			text += fmt.Sprintf(" (did you mean %q?)", near)
		}
		texts = append(texts, text)
	}
	if more := len(names) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("%w %s: `netguard status` without names lists those there are", ErrUnknownContainer, strings.Join(texts, ", "))
}

// fill makes nil lists empty, so that the JSON has [] and not null where the contract promises
// a list. It writes to a copy of the endpoints: the source may give the same ones to others.
func (s *Status) fill() {
	fill(&s.Findings)
	s.Endpoints = slices.Clone(s.Endpoints)
	fill(&s.Endpoints)
	for i := range s.Endpoints {
		fill(&s.Endpoints[i].Policy.Ingress)
		fill(&s.Endpoints[i].Policy.Egress)
	}
}

func fill[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}
