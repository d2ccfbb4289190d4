package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// imagePatience is how long a reading waits for images that are new to it: what
	// Docker has to say of them takes some milliseconds. The first reading waits longer,
	// since what it finds is compared with connections that exist.
	imagePatience      = 150 * time.Millisecond
	firstImagePatience = 5 * time.Second
	// imageAgain is after what time an image that could not be read is asked for again,
	// by the next reading.
	imageAgain = 2 * time.Second
	// imageAskers is how many images are asked for at a time.
	imageAskers = 4
	// versionPlatform is the API with which an image of one platform can be asked for.
	versionPlatform = "1.49"
)

// Labels that Docker Compose gives to containers and never to images.
var composeOnly = []string{"com.docker.compose.config-hash", "com.docker.compose.container-number"}

// Labels that Docker Compose gives to containers, and to the images that it builds.
var composeBoth = []string{"com.docker.compose.project", "com.docker.compose.service"}

// inherited names the labels of a container whose value is that of its image: the
// engine copies an image's labels, and does not say which were asked for. Compose's
// project and service are its creator's where only Compose can have made the container:
// it has the labels that Compose gives to no image, and its image has none of them.
func inherited(own, image map[string]string) map[string]bool {
	var out map[string]bool
	composed := true
	for _, label := range composeOnly {
		_, has := own[label]
		_, given := image[label]
		composed = composed && has && !given
	}
	for label, value := range image {
		if got, has := own[label]; !has || got != value || composed && (label == composeBoth[0] || label == composeBoth[1]) {
			continue
		}
		if out == nil {
			out = map[string]bool{}
		}
		out[label] = true
	}
	return out
}

// imageKey names an image of one platform. It is made of digests: what they name does
// not change.
type imageKey struct {
	id       string
	manifest string // "" where the engine keeps no other platforms
}

// imageRef is the image of a container.
type imageRef struct {
	imageKey
	platform *ocispec.Platform // nil where the engine does not say
}

func imageOf(s container.Summary) imageRef {
	ref := imageRef{imageKey: imageKey{id: s.ImageID}}
	if d := s.ImageManifestDescriptor; d != nil && d.Digest != "" {
		ref.manifest, ref.platform = string(d.Digest), d.Platform
	}
	return ref
}

// knownImage is what was learnt of an image. The mutex of images guards it.
type knownImage struct {
	labels   map[string]string
	err      error     // why they are not known
	at       time.Time // of the answer
	answered bool
	done     chan struct{}       // closed with the answer
	late     map[string]struct{} // containers that were read without it
}

// images are the labels of the images that containers are of.
type images struct {
	mu    sync.Mutex
	known map[imageKey]*knownImage
	turns chan struct{}
}

func newImages() *images {
	return &images{known: map[imageKey]*knownImage{}, turns: make(chan struct{}, imageAskers)}
}

// ask asks for an image in the background, unless it is known or being asked for. It
// gives what to wait for, nil if nothing new comes.
func (e *Engine) ask(ctx context.Context, c *caller, ref imageRef) *knownImage {
	i := e.images
	i.mu.Lock()
	defer i.mu.Unlock()
	if k := i.known[ref.imageKey]; k != nil && (!k.answered || k.err == nil || time.Since(k.at) < imageAgain) {
		return nil
	}
	k := &knownImage{done: make(chan struct{})}
	i.known[ref.imageKey] = k
	go func() {
		labels, err := i.turn(ctx, c, ref)
		i.mu.Lock()
		k.labels, k.err, k.at, k.answered = labels, err, time.Now(), true
		late := k.late
		i.mu.Unlock()
		close(k.done)
		e.hurry(late)
	}()
	return k
}

func (i *images) turn(ctx context.Context, c *caller, ref imageRef) (map[string]string, error) {
	select {
	case i.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-i.turns }()
	return c.imageLabels(ctx, ref)
}

// hurry has containers read again.
func (e *Engine) hurry(containers map[string]struct{}) {
	if len(containers) == 0 {
		return
	}
	e.mu.Lock()
	for id := range containers {
		e.hint.container(id)
	}
	wake := e.wake
	e.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// prove finds out which labels containers have of their images. It waits for images
// that nobody has asked for before, and no longer than it may: when an answer comes
// later, the containers are read again.
func (e *Engine) prove(ctx context.Context, r *reader, patience time.Duration) {
	var waiting []*knownImage
	for id := range r.listed {
		if k := e.ask(ctx, r.client, r.Containers[id].image); k != nil {
			waiting = append(waiting, k)
		}
	}
	enough := time.NewTimer(patience)
	defer enough.Stop()
	for over := false; len(waiting) > 0 && !over; waiting = waiting[1:] {
		select {
		case <-waiting[0].done:
		case <-enough.C:
			over = true
		case <-ctx.Done():
			over = true
		}
	}
	for id := range r.listed {
		if c, ok := r.Containers[id]; ok {
			e.images.judge(&c)
			r.Containers[id] = c
		}
	}
}

// judge tells which labels of a container are the image's, as far as it is known.
func (i *images) judge(c *Container) {
	i.mu.Lock()
	defer i.mu.Unlock()
	k := i.known[c.image.imageKey]
	c.Inherited, c.Unproven = nil, ""
	switch {
	case k == nil || !k.answered:
		c.Unproven = "the labels of its image have not been read yet"
		if k != nil {
			if k.late == nil {
				k.late = map[string]struct{}{}
			}
			k.late[c.ID] = struct{}{}
		}
	case k.err != nil:
		c.Unproven = fmt.Sprintf("the labels of its image cannot be read: %v", k.err)
	default:
		c.Inherited = inherited(c.Labels, k.labels)
	}
}

// forget forgets the images that none of these containers is of.
func (i *images) forget(containers map[string]Container) {
	used := make(map[imageKey]bool, len(containers))
	for _, c := range containers {
		used[c.image.imageKey] = true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for key := range i.known {
		if !used[key] {
			delete(i.known, key)
		}
	}
}

// imageLabels asks the engine for the labels of an image.
func (c *caller) imageLabels(ctx context.Context, ref imageRef) (map[string]string, error) {
	if ref.id == "" {
		return nil, errors.New("docker does not say which it is")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var options []client.ImageInspectOption
	want := ref.id
	byPlatform := ref.platform != nil && versions.GreaterThanOrEqualTo(c.ClientVersion(), versionPlatform)
	if byPlatform {
		options, want = append(options, client.ImageInspectWithPlatform(ref.platform)), ref.manifest
	}
	got, err := c.ImageInspect(ctx, ref.id, options...)
	switch {
	case errdefs.IsNotFound(err):
		return nil, fmt.Errorf("docker has it no more: %w", err)
	case err != nil:
		return nil, fmt.Errorf("inspect image %.70s: %w", ref.id, err)
	case got.ID != want:
		return nil, fmt.Errorf("inspect image %.70s: %w: it is about %.70q", ref.id, errWrongAnswer, got.ID)
	case got.Config == nil && got.Os == "":
		return nil, fmt.Errorf("inspect image %.70s: docker has no configuration of it for this host", ref.id)
	case !byPlatform && ref.platform != nil && !samePlatform(got, ref.platform):
		return nil, fmt.Errorf("inspect image %.70s: docker tells of another platform (%.20s/%.20s) than the container's", ref.id, got.Os, got.Architecture)
	case got.Config == nil:
		return nil, nil
	}
	return clipValues(got.Config.Labels), nil
}

func samePlatform(got image.InspectResponse, p *ocispec.Platform) bool {
	return got.Os == p.OS && got.Architecture == p.Architecture &&
		(got.Variant == p.Variant || got.Variant == "" || p.Variant == "")
}

// clipValues bounds what is kept of labels, as of a container's.
func clipValues(labels map[string]string) map[string]string {
	for key, value := range labels {
		if len(value) > maxValue {
			labels[key] = strings.Clone(value[:maxValue])
		}
	}
	return labels
}
