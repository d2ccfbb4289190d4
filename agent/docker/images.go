package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// imagePatience is how long a reading waits for the labels of new images. Docker answers
	// within some milliseconds. The first reading waits for firstImagePatience, because its
	// result is compared with connections that exist.
	imagePatience      = 150 * time.Millisecond
	firstImagePatience = 5 * time.Second
	// versionPlatform is the API with which an image of one platform can be asked for.
	versionPlatform = "1.49"
)

// Labels that Docker Compose gives to containers and never to images.
var composeOnly = []string{"com.docker.compose.config-hash", "com.docker.compose.container-number"}

// Labels that Docker Compose gives to containers, and to the images that it builds.
var composeBoth = []string{"com.docker.compose.project", "com.docker.compose.service"}

// inherited names the labels of a container that have the same value in its image. The engine
// copies an image's labels, and does not say which ones the creator asked for. Compose's
// project and service labels count as the creator's if only Compose can have made the
// container. That is so if the container has the labels of composeOnly and its image has none
// of them.
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

// images are the labels of the images that containers are of.
type images = asker[imageKey, map[string]string]

// hurry adds containers to the hint: they are read again.
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

// prove finds out which labels containers have from their images. It waits for the answers
// about new images, up to patience. When an answer comes later, the containers are read again.
func (e *Engine) prove(ctx context.Context, r *reader, patience time.Duration) {
	var waiting []*answer[map[string]string]
	for _, c := range r.read {
		if c == nil {
			continue
		}
		ref := c.image
		k := e.images.ask(ctx, ref.imageKey, "", func(ctx context.Context) (map[string]string, error) {
			return r.client.imageLabels(ctx, ref)
		}, func(k *answer[map[string]string], _ map[string]string) {
			e.hurry(k.late)
		})
		if k != nil {
			waiting = append(waiting, k)
		}
	}
	await(ctx, waiting, patience)
	e.images.mu.Lock()
	defer e.images.mu.Unlock()
	for _, c := range r.read {
		if c != nil {
			judge(c, e.images.known[c.image.imageKey])
		}
	}
}

// judge tells which labels of a container are those of its image, as far as it is known.
func judge(c *Container, k *answer[map[string]string]) {
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
		c.Inherited = inherited(c.Labels, k.value)
	}
}

// imageLabels asks the engine for the labels of an image.
func (c *caller) imageLabels(ctx context.Context, ref imageRef) (map[string]string, error) {
	if ref.id == "" {
		return nil, errors.New("docker does not say which it is")
	}
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
