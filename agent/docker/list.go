package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"

	"netguard/internal/changed"
)

const (
	// maxByID is how many containers are asked for by ID; beyond it, listing
	// all is cheaper for the engine.
	maxByID = 64
	// firstPage is the size of a page if the list of all containers is too large. If a page is
	// too large as well, its size shrinks to a part of it, down to smallestPage. Once that page
	// is read in parts, the next page has the larger size again.
	firstPage, pageParts, smallestPage = 1024, 32, 1
)

// containers lists the containers with these IDs, or all if ids is nil. A container that is not
// in the answer becomes nil in r.read.
func (r *reader) containers(ctx context.Context, ids map[string]struct{}) error {
	full := ids == nil || len(ids) > maxByID
	o := container.ListOptions{All: true}
	if !full {
		o.Filters = filters.NewArgs()
		for id := range ids {
			o.Filters.Add("id", id)
		}
	}
	list, err := r.page(ctx, o)
	if errors.Is(err, errLargeAnswer) {
		list, err = r.pages(ctx, o)
	}
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	if full {
		r.read = make(map[string]*Container, len(list))
		for _, c := range r.before.Containers {
			r.read[c.ID] = nil
		}
	}
	for id := range ids {
		r.read[id] = nil
	}
	for _, c := range list {
		if was := r.before.Container(c.ID); was != nil && was.Image != "" && c.Image == c.image.id {
			c.Image = was.Image // the tag names another image now; the container was made with this one
		}
		r.read[c.ID] = c
	}
	return nil
}

// pages lists containers in pages. A container that is too large for a page of its own is listed
// without its labels.
func (r *reader) pages(ctx context.Context, o container.ListOptions) ([]*Container, error) {
	var all []*Container
	among, last := o.Filters, ""
	o.Limit = firstPage
	for {
		page, err := r.page(ctx, o)
		if errors.Is(err, errLargeAnswer) {
			if o.Limit > smallestPage {
				o.Limit /= pageParts
				continue
			}
			page, err = r.trimmed(ctx, o)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < o.Limit {
			return all, nil
		}
		if page[len(page)-1].ID == last {
			return nil, fmt.Errorf("%w: a page follows itself", errWrongAnswer)
		}
		last = page[len(page)-1].ID // the newest come first
		o.Filters = among.Clone()
		o.Filters.Add("before", last)
		for o.Limit < firstPage && len(all)%(o.Limit*pageParts) == 0 {
			o.Limit *= pageParts
		}
	}
}

func (r *reader) page(ctx context.Context, o container.ListOptions) ([]*Container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := r.client.ContainerList(ctx, o)
	if err != nil {
		return nil, err
	}
	out := make([]*Container, len(list))
	for i, s := range list {
		if !isID(s.ID) {
			return nil, fmt.Errorf("%w: one has the ID %.70q", errWrongAnswer, s.ID)
		}
		out[i] = newContainer(s)
	}
	return out, nil
}

// gone makes sure that the containers which a new list lacks do not exist any more. It inspects
// each of them: for a container that does not exist, the engine waits for no lock.
func (r *reader) gone(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inspectors)
	for id, is := range r.read {
		if is != nil || r.before.Container(id) == nil {
			continue
		}
		if ctx.Err() != nil {
			break // a container exists, or an inspection failed
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
			defer cancel()
			_, err := r.client.ContainerInspect(ctx, id)
			switch {
			case errdefs.IsNotFound(err):
				return nil
			case err != nil:
				return fmt.Errorf("ask whether container %.12s is gone: %w", id, err)
			}
			return fmt.Errorf("list containers: %w: it lacks %.12s, which exists", errWrongAnswer, id)
		})
	}
	return g.Wait()
}

// share finds the container whose network namespace another one shares. This stays the same
// while the container runs, even if the other one gets a new name. So a container that ran
// before keeps its answer as long as the other one exists. share resolves the mode of all
// others.
func (r *reader) share() {
	for _, was := range r.before.sharing {
		if _, read := r.read[was.ID]; !read && was.SandboxOf == "" {
			c := *was
			r.read[c.ID] = &c
		}
	}
	for id, c := range r.read {
		if c == nil || !c.shares() {
			continue
		}
		was := r.before.Container(id)
		if was.Running() && c.Running() && r.now(was.SandboxOf) != nil {
			c.SandboxOf = was.SandboxOf
		} else {
			c.SandboxOf = r.shared(c)
		}
	}
}

// shared returns the ID of the container whose network namespace c shares; "" if it is not
// known. The mode of c has that container's ID, its name or the start of its ID.
func (r *reader) shared(c *Container) string {
	ref := strings.TrimPrefix(c.NetworkMode, sharedMode)
	if ref == "" || r.now(ref) != nil {
		return ref
	}
	byPrefix := ""
	ambiguous := false
	for _, o := range changed.With(r.before.Containers, r.read) {
		if o.Name == ref {
			return o.ID
		}
		if strings.HasPrefix(o.ID, ref) {
			ambiguous = byPrefix != ""
			byPrefix = o.ID
		}
	}
	if ambiguous {
		return ""
	}
	return byPrefix
}
