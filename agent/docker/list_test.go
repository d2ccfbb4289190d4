package docker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"netguard/internal/changed"
)

// shop answers as an engine with these containers does, the newest first.
type shop struct {
	ids   []string
	label string
	many  map[string]bool // containers with very many labels

	// image is what all containers are of, and imaged the labels that it gives them.
	image, reference string
	manifest         *ocispec.Descriptor // of the platform
	api              string              // version
	dataPort         uint32              // of the Swarm that the engine is in; 0 for none

	imaged map[string]string
	answer func(w http.ResponseWriter) // about the image

	mu    sync.Mutex
	lies  []string // containers that are in no list
	asked []string
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", cmp.Or(s.api, "1.41"))
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, path+"?"+r.URL.RawQuery)
	var answer any
	switch path {
	case "_ping":
	case "info":
		answer = system.Info{ServerVersion: "20.10.24", Swarm: s.swarm()}
	case "networks":
		list := []network.Summary{{ID: "h", Name: "host", Driver: "host"}}
		if s.dataPort > 0 {
			list = append(list, network.Summary{ID: "o", Name: "ingress", Driver: "overlay"})
		}
		answer = list
	case "networks/o":
		answer = network.Inspect{ID: "o", Name: "ingress", Driver: "overlay"}
		if s.dataPort == 0 {
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]string{"message": "no such network"}
		}
	case "networks/h":
		answer = network.Inspect{ID: "h", Name: "host", Driver: "host"}
	case "containers/json":
		answer = s.list(r)
	case "images/" + s.image + "/json":
		s.images(w)
		return
	default:
		id, ok := strings.CutSuffix(strings.TrimPrefix(path, "containers/"), "/json")
		if !ok || !strings.Contains(strings.Join(append(s.ids, s.lies...), " "), id) {
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]string{"message": "no such container"}
			break
		}
		answer = container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{ID: id}}
	}
	_ = json.NewEncoder(w).Encode(answer) // the one who asked may have had enough
}

func (s *shop) labels() map[string]string {
	labels := map[string]string{"a": s.label}
	maps.Copy(labels, s.imaged)
	return labels
}

// images answers without the lock: it may take long.
func (s *shop) images(w http.ResponseWriter) {
	s.mu.Unlock()
	defer s.mu.Lock()
	if s.answer != nil {
		s.answer(w)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Id": s.image, "Os": "linux", "Config": map[string]any{"Labels": s.imaged}})
}

func (s *shop) list(r *http.Request) []container.Summary {
	query := r.URL.Query()
	limit, _ := strconv.Atoi(query.Get("limit"))
	var filter struct{ Before, ID map[string]bool }
	_ = json.Unmarshal([]byte(query.Get("filters")), &filter)
	before, out := "", []container.Summary{}
	for id := range filter.Before {
		before = id
	}
	for _, id := range s.ids {
		switch {
		case before != "":
			if id == before {
				before = ""
			}
		case len(filter.ID) > 0 && !filter.ID[id], limit > 0 && len(out) == limit:
		default:
			labels := s.labels()
			for i := 0; s.many[id] && i < 4000; i++ {
				labels[fmt.Sprint(i)] = ""
			}
			out = append(out, container.Summary{ID: id, Names: []string{"/" + id[len(id)-8:]}, State: "created", Labels: labels, ImageID: s.image, Image: s.reference, ImageManifestDescriptor: s.manifest})
		}
	}
	return out
}

func (s *shop) open(t *testing.T) *Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	go func() { _ = server.Serve(l) }()
	e, err := New("unix://"+socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = e.Close(), server.Close() })
	return e
}

func newShop(containers, label int) *shop {
	s := &shop{label: strings.Repeat("x", label)}
	for i := range containers {
		s.ids = append(s.ids, fmt.Sprintf("%064x", 1000-i))
	}
	return s
}

func TestRefresh(t *testing.T) {
	full := Hint{Full: true}
	t.Run("lists_in_pages_what_is_too_large_at_once", func(t *testing.T) {
		s := newShop(70, maxValue+1)
		e := s.open(t)
		e.most = 4 << 20
		v, err := e.Refresh(t.Context(), full)
		if err != nil || len(v.Containers) != len(s.ids) {
			t.Fatalf("%d containers, %v", len(v.Containers), err)
		}
		for _, id := range s.ids {
			if got := len(v.Container(id).Labels["a"]); got != maxValue {
				t.Errorf("%d bytes of a label are kept of %s", got, id)
			}
		}
		if n := len(s.asked); n > 12 {
			t.Errorf("the engine was asked %d times: %.200q", n, s.asked)
		}
	})
	t.Run("a_container_is_gone_when_the_engine_says_so_asked_for_it", func(t *testing.T) {
		s := newShop(3, 1)
		e := s.open(t)
		if _, err := e.Refresh(t.Context(), full); err != nil {
			t.Fatal(err)
		}
		s.lies, s.ids = s.ids[:1], s.ids[1:]
		for _, h := range []Hint{full, {Containers: map[string]struct{}{s.lies[0]: {}}}} {
			v, err := e.Refresh(t.Context(), h)
			if err == nil || !strings.Contains(err.Error(), "which exists") || len(v.Containers) != 3 {
				t.Errorf("%d containers, %v", len(v.Containers), err)
			}
		}
		if h := e.TakeHint(); !h.Full {
			t.Errorf("what could not be read is not read again: %+v", h)
		}
		s.lies = nil
		if v, err := e.Refresh(t.Context(), full); err != nil || len(v.Containers) != 2 {
			t.Errorf("%d containers, %v", len(v.Containers), err)
		}
	})
	t.Run("what_is_read_again_and_is_as_it_was_is_the_same_list", func(t *testing.T) {
		s := newShop(3, 1)
		e := s.open(t)
		one := Hint{Containers: map[string]struct{}{s.ids[1]: {}}, Networks: map[string]struct{}{}}
		was, err := e.Refresh(t.Context(), full)
		if err != nil {
			t.Fatal(err)
		}
		for id := range was.Networks {
			one.Networks[id] = struct{}{}
		}
		for _, h := range []Hint{full, one} {
			is, err := e.Refresh(t.Context(), h)
			if err != nil || !slices.Equal(was.Containers, is.Containers) || !changed.Identical(was.Networks, is.Networks) {
				t.Errorf("%+v, %v: another one", h, err)
			}
		}
		s.label = "y"
		is, err := e.Refresh(t.Context(), one)
		if err != nil || slices.Equal(was.Containers, is.Containers) || was.Container(s.ids[1]).Labels["a"] == is.Container(s.ids[1]).Labels["a"] {
			t.Errorf("a label changed: %v, %v", err, is.Container(s.ids[1]))
		}
		s.ids = s.ids[:2]
		if is, err = e.Refresh(t.Context(), full); err != nil || len(is.Containers) != 2 {
			t.Errorf("%d containers, %v", len(is.Containers), err)
		}
	})
	t.Run("asks_once_which_engine_it_is", func(t *testing.T) {
		s := newShop(1, 1)
		e := s.open(t)
		for range 3 {
			if v, err := e.Refresh(t.Context(), full); err != nil || v.Version != "20.10.24" {
				t.Errorf("%+v, %v", v, err)
			}
		}
		if n := strings.Count(strings.Join(s.asked, " "), "info?"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}
