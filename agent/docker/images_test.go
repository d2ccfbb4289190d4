package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	project = "com.docker.compose.project"
	service = "com.docker.compose.service"
	version = "com.docker.compose.version"
	hash    = "com.docker.compose.config-hash"
	number  = "com.docker.compose.container-number"
)

func pairs(words ...string) map[string]string {
	out := map[string]string{}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		out[key] = value
	}
	return out
}

// TestInherited: which labels are the creator's, and which may be the image's.
func TestInherited(t *testing.T) {
	composed := []string{project + "=shop", service + "=api", version + "=2", hash + "=7a", number + "=1"}
	built := []string{project + "=shop", service + "=api", version + "=2"}
	for name, test := range map[string]struct {
		own, image []string
		want       []string
	}{
		"an_image_without_labels":        {own: composed},
		"labels_of_the_creator":          {own: []string{"role=backup"}, image: []string{"team=red"}},
		"the_same_value":                 {own: []string{"role=backup", "team=red"}, image: []string{"role=backup", "team=red"}, want: []string{"role", "team"}},
		"another_value":                  {own: []string{"role=backup"}, image: []string{"role=web"}},
		"an_empty_value":                 {own: []string{"role="}, image: []string{"role="}, want: []string{"role"}},
		"an_empty_value_of_the_creator":  {own: []string{"role="}, image: []string{"role=web"}},
		"Compose_built_the_image":        {own: composed, image: built, want: []string{version}},
		"Compose_and_a_label_beside":     {own: append(slices.Clone(composed), "role=x"), image: append(slices.Clone(built), "role=x"), want: []string{version, "role"}},
		"not_made_by_Compose":            {own: built, image: built, want: built},
		"half_made_by_Compose":           {own: composed[:4], image: built, want: built},
		"made_by_Compose_of_a_commit":    {own: append(slices.Clone(built), hash+"=5c", number+"=2"), image: composed, want: built},
		"a_number_in_the_image":          {own: composed, image: append(slices.Clone(built), number+"=7"), want: built},
		"Compose_of_another_s_image":     {own: composed, image: []string{project + "=evil", service + "=api"}},
		"an_image_that_says_it_is_of_it": {own: composed, image: composed, want: composed},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]bool{}
			for key := range pairs(test.want...) {
				want[key] = true
			}
			if got := inherited(pairs(test.own...), pairs(test.image...)); !maps.Equal(got, want) {
				t.Errorf("inherited are %v, want %v", got, want)
			}
		})
	}
}

func TestImages(t *testing.T) {
	const id = "sha256:0000"
	full := Hint{Full: true}
	open := func(t *testing.T, containers int) (*shop, *Engine) {
		t.Helper()
		s := newShop(containers, 1)
		s.image, s.reference, s.imaged = id, "evil:1", pairs("role=backup")
		return s, s.open(t)
	}
	one := func(t *testing.T, s *shop, v View) *Container {
		t.Helper()
		c := v.Container(s.ids[0])
		if c == nil {
			t.Fatalf("it is not in the view: %+v", v)
		}
		return c
	}
	t.Run("are_asked_for_once", func(t *testing.T) {
		s, e := open(t, 20)
		for range 3 {
			v, err := e.Refresh(t.Context(), full)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range v.Containers {
				if c.Counts("role") || !c.Counts("a") || c.Unproven != "" || c.Image != "evil:1" {
					t.Fatalf("%+v", c)
				}
			}
		}
		if n := strings.Count(strings.Join(s.asked, " "), "images/"); n != 1 {
			t.Errorf("it was asked for %d times", n)
		}
	})
	t.Run("are_forgotten_when_nobody_is_of_them", func(t *testing.T) {
		s, e := open(t, 2)
		if _, err := e.Refresh(t.Context(), full); err != nil || len(e.images.known) != 1 {
			t.Fatalf("%d images, %v", len(e.images.known), err)
		}
		s.ids = nil
		if _, err := e.Refresh(t.Context(), full); err != nil || len(e.images.known) != 0 {
			t.Errorf("%d images, %v", len(e.images.known), err)
		}
	})
	t.Run("keep_the_name_that_a_container_was_given", func(t *testing.T) {
		s, e := open(t, 1)
		if _, err := e.Refresh(t.Context(), full); err != nil {
			t.Fatal(err)
		}
		s.reference = id // as an engine lists it when the tag has moved
		v, err := e.Refresh(t.Context(), full)
		if c := one(t, s, v); err != nil || c.Image != "evil:1" || c.Counts("role") {
			t.Errorf("%+v, %v", c, err)
		}
	})
	for name, answer := range map[string]func(http.ResponseWriter){
		"that_are_gone":              func(w http.ResponseWriter) { http.Error(w, `{"message": "No such image"}`, http.StatusNotFound) },
		"that_the_engine_fails_at":   func(w http.ResponseWriter) { http.Error(w, `{"message": "no"}`, http.StatusInternalServerError) },
		"that_are_others":            func(w http.ResponseWriter) { fmt.Fprint(w, `{"Id": "sha256:1111", "Os": "linux", "Config": {}}`) },
		"without_a_configuration":    func(w http.ResponseWriter) { fmt.Fprintf(w, `{"Id": %q}`, id) },
		"that_are_no_JSON":           func(w http.ResponseWriter) { fmt.Fprint(w, `<html>`) },
		"whose_labels_have_no_bound": func(w http.ResponseWriter) { fmt.Fprintf(w, `{"Id": "%s"}`, strings.Repeat("x", maxImage)) },
	} {
		t.Run(name+"_prove_nothing", func(t *testing.T) {
			s, e := open(t, 1)
			s.answer = answer
			v, err := e.Refresh(t.Context(), full)
			if c := one(t, s, v); err != nil || c.Unproven == "" || c.Counts("a") || c.Counts("role") {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
	t.Run("that_come_late_hold_up_nobody", func(t *testing.T) {
		s, e := open(t, 1)
		if _, err := e.Refresh(t.Context(), full); err != nil {
			t.Fatal(err)
		}
		let, woken := make(chan struct{}), make(chan struct{}, 1)
		s.answer = func(w http.ResponseWriter) {
			<-let
			_ = json.NewEncoder(w).Encode(image.InspectResponse{ID: "sha256:2222", Os: "linux"})
		}
		s.image = "sha256:2222"
		e.wake = func() { woken <- struct{}{} }
		began := time.Now()
		v, err := e.Refresh(t.Context(), Hint{Containers: map[string]struct{}{s.ids[0]: {}}})
		if c := one(t, s, v); err != nil || c.Unproven == "" || time.Since(began) > 5*time.Second {
			t.Fatalf("after %v: %+v, %v", time.Since(began), c, err)
		}
		// Who comes meanwhile does not wait at all, and is told of as well.
		if c := one(t, s, v); c.Counts("a") {
			t.Errorf("it counts what nobody knows: %+v", c)
		}
		close(let)
		<-woken
		h := e.TakeHint()
		if _, named := h.Containers[s.ids[0]]; !named {
			t.Fatalf("the container is not read again: %+v", h)
		}
		v, err = e.Refresh(t.Context(), h)
		if c := one(t, s, v); err != nil || c.Unproven != "" || !c.Counts("role") {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// An image of several platforms may have other labels on each: what counts is that of
// the container.
func TestImagePlatforms(t *testing.T) {
	const index, other, own = "sha256:1d", "sha256:a64", "sha256:386"
	for name, test := range map[string]struct {
		api      string
		id       string // that the engine answers with
		arch     string
		inherits bool
		unproven bool
	}{
		"is_asked_for":                         {api: "1.49", id: own, arch: "386", inherits: true},
		"another_one_proves_nothing":           {api: "1.49", id: other, arch: "386", unproven: true},
		"nor_does_the_index":                   {api: "1.49", id: index, arch: "amd64", unproven: true},
		"an_older_engine_may_tell_of_it":       {api: "1.48", id: index, arch: "386", inherits: true},
		"an_older_engine_may_tell_of_the_host": {api: "1.48", id: index, arch: "amd64", unproven: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(1, 1)
			s.image, s.api, s.imaged = index, test.api, pairs("role=backup")
			s.manifest = &ocispec.Descriptor{Digest: own, Platform: &ocispec.Platform{OS: "linux", Architecture: "386"}}
			s.answer = func(w http.ResponseWriter) {
				_ = json.NewEncoder(w).Encode(map[string]any{"Id": test.id, "Os": "linux", "Architecture": test.arch, "Config": map[string]any{"Labels": s.imaged}})
			}
			v, err := s.open(t).Refresh(t.Context(), Hint{Full: true})
			c := v.Container(s.ids[0])
			if err != nil || c.Inherited["role"] != test.inherits || (c.Unproven != "") != test.unproven || c.Counts("role") {
				t.Errorf("%+v, %v", c, err)
			}
			asked := slices.ContainsFunc(s.asked, func(a string) bool { return strings.HasPrefix(a, "images/") && strings.Contains(a, "platform=") })
			if asked != (test.api == "1.49") {
				t.Errorf("asked were %q", s.asked)
			}
		})
	}
	got := image.InspectResponse{Os: "linux", Architecture: "arm64", Variant: "v8"}
	for _, test := range []struct {
		os, arch, variant string
		want              bool
	}{{"linux", "arm64", "v8", true}, {"linux", "arm64", "", true}, {"linux", "amd64", "", false}, {"linux", "arm64", "v9", false}, {"windows", "arm64", "v8", false}} {
		if samePlatform(got, &ocispec.Platform{OS: test.os, Architecture: test.arch, Variant: test.variant}) != test.want {
			t.Errorf("%+v", test)
		}
	}
}
