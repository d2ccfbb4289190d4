package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/build"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// raise builds an image of the probe whose one step runs it with arguments, and tells
// whether that went well.
func raise(ctx context.Context, e *Engine, builder build.BuilderVersion, probe ...string) error {
	words := make([]string, len(probe))
	for i, p := range probe {
		words[i] = fmt.Sprintf("%q", p)
	}
	file := fmt.Sprintf("FROM %s\nRUN [\"/probe\", %s]\n", Probe, strings.Join(words, ", "))
	var source bytes.Buffer
	w := tar.NewWriter(&source)
	if err := w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(file))}); err != nil {
		return err
	}
	if _, err := io.WriteString(w, file); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	answer, err := e.Client.ImageBuild(ctx, &source, build.ImageBuildOptions{Version: builder, NoCache: true, ForceRemove: true})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && bytes.Contains(text, []byte(`"errorDetail"`)) {
		err = fmt.Errorf("build: %s", text)
	}
	return err
}

// TestBuilds has both builders run a step that connects at once, with admission closed.
// BuildKit's steps are endpoints of the network and no containers.
func TestBuilds(t *testing.T) {
	t.Parallel()
	e := Start(t)
	peer := e.Run("peer", Doing("serve", "tcp", ":80", "udp", ":80"))
	a := e.Agent()
	a.AwaitStatus("the peer is admitted", AllAdmitted)
	to := peer.Addr("bridge", 80)
	for name, builder := range map[string]build.BuilderVersion{"legacy": build.BuilderV1, "buildkit": build.BuilderBuildKit} {
		t.Run(name+"_reaches_the_network", func(t *testing.T) {
			for _, protocol := range []string{"tcp", "udp"} {
				if err := raise(t.Context(), e, builder, "connect", protocol, to, "5s"); err != nil {
					t.Error(protocol, err)
				}
			}
		})
	}
	t.Run("a_step_has_a_row_and_goes_with_it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- raise(ctx, e, build.BuilderBuildKit, "pause") }()
		is := func(s control.Endpoint) bool { return s.Kind == control.KindBuild }
		s := a.AwaitStatus("the step is admitted", func(s control.Status) bool {
			return slices.ContainsFunc(s.Endpoints, func(e control.Endpoint) bool { return is(e) && Whole(e) })
		})
		row := s.Endpoints[slices.IndexFunc(s.Endpoints, is)]
		if row.Network != "bridge" || row.MAC == "" || row.IPv4 == "" || len(row.Findings) > 0 {
			t.Errorf("%+v", row)
		}
		cancel()
		<-ended
		a.AwaitStatus("the step is gone", func(s control.Status) bool { return !slices.ContainsFunc(s.Endpoints, is) })
	})
	t.Run("policies_are_about_builds", func(t *testing.T) {
		book := newRulebook(e, a)
		for file, yaml := range map[string]string{
			"by_entity":     "name: x\nselect: {entity: build}\negress: []\n",
			"with_everyone": "name: x\nselect: {}\ndeny: [{egress: {to: [{service: none}, {network: bridge}]}}]\n",
			"as_a_peer":     "name: x\nselect: {container: peer}\ndeny: [{ingress: {from: [{entity: build}]}}]\n",
		} {
			book.enact(t, map[string]string{"x.yaml": yaml})
			if err := raise(t.Context(), e, build.BuilderBuildKit, "connect", "tcp", to, "700ms"); err == nil {
				t.Errorf("%s: a build reached whom a policy keeps it from", file)
			}
		}
		book.enact(t, map[string]string{"x.yaml": "name: x\nselect: {container: peer}\ningress: [{from: [{entity: build}]}]\n"})
		if err := raise(t.Context(), e, build.BuilderBuildKit, "connect", "tcp", to, "5s"); err != nil {
			t.Error(err)
		}
		if err := raise(t.Context(), e, build.BuilderV1, "connect", "tcp", to, "700ms"); err == nil {
			t.Error("a container passes for a build")
		}
	})
}
