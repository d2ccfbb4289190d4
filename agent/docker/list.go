package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"
)

const (
	// maxByID is how many containers are asked for by ID; beyond it, listing
	// all is cheaper for the engine.
	maxByID = 64
	// firstPage is how many containers are listed at a time when all at once
	// are too much, smallestPage when these and a thirty-second of them are.
	firstPage, smallestPage = 1024, 1
)

// containers lists containers, all for nil, and puts them in the view; those
// that are not in the answer are taken out.
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
	for size := firstPage; errors.Is(err, errLargeAnswer) && size >= smallestPage; size /= 32 {
		list, err = r.pages(ctx, o, size)
	}
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	before := r.Containers
	switch {
	case full:
		r.Containers, r.ownCons = make(map[string]Container, len(list)), true
	case !r.ownCons:
		r.Containers, r.ownCons = maps.Clone(before), true
	}
	changed := make(map[string]Container, len(list)) // as they were
	for id := range ids {
		delete(r.Containers, id)
	}
	for _, c := range list {
		old := before[c.ID]
		if c.Image == c.image.id && old.Image != "" {
			c.Image = old.Image // its tag has moved on: that it was given does not change
		}
		r.listed[c.ID] = struct{}{}
		changed[c.ID] = old
		r.Containers[c.ID] = c
	}
	r.share(changed)
	return nil
}

// pages lists containers so many at a time.
func (r *reader) pages(ctx context.Context, o container.ListOptions, size int) ([]Container, error) {
	o.Limit = size
	var all []Container
	among, last := o.Filters, ""
	for {
		page, err := r.page(ctx, o)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < size {
			return all, nil
		}
		if page[len(page)-1].ID == last {
			return nil, fmt.Errorf("%w: a page follows itself", errWrongAnswer)
		}
		last = page[len(page)-1].ID // the newest come first
		o.Filters = among.Clone()
		o.Filters.Add("before", last)
	}
}

func (r *reader) page(ctx context.Context, o container.ListOptions) ([]Container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := r.client.ContainerList(ctx, o)
	if err != nil {
		return nil, err
	}
	out := make([]Container, len(list))
	for i, s := range list {
		if !isID(s.ID) {
			return nil, fmt.Errorf("%w: one has the ID %.70q", errWrongAnswer, s.ID)
		}
		out[i] = newContainer(s)
	}
	return out, nil
}

// gone makes sure that containers that were known and are not any more do not
// exist. The engine does not wait for a lock to say so.
func (r *reader) gone(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inspectors)
	for id := range r.before.Containers {
		if _, is := r.Containers[id]; is {
			continue
		}
		if ctx.Err() != nil {
			break // one is there
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

// share resolves whose namespace containers share. While a container runs that
// stays as it was when it started, also when the other one gets a new name, so
// it is resolved when it is listed and did not run before.
func (r *reader) share(was map[string]Container) {
	for id, c := range r.Containers {
		if !strings.HasPrefix(c.NetworkMode, sharedMode) {
			continue
		}
		old, listed := was[id]
		switch _, exists := r.Containers[old.SandboxOf]; {
		case !listed && c.SandboxOf != "":
			continue
		case listed && exists && old.Running() && c.Running():
			c.SandboxOf = old.SandboxOf
		default:
			c.SandboxOf = r.shared(c)
		}
		r.Containers[id], r.listed[id] = c, struct{}{}
	}
}
