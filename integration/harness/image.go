package harness

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/docker/docker/api/types/image"
)

// The images of the harness. Nothing is pulled: each is a tar made here.
const (
	// Probe holds one static program, /probe (see integration/probe), which is
	// also its entry point.
	Probe = "probe"
	// Iperf3 holds this machine's iperf3 as well.
	Iperf3 = "iperf3"
)

// need imports an image unless the engine has it.
func (e *Engine) need(name string) error {
	e.mu.Lock()
	once := e.images[name]
	if once == nil {
		once = sync.OnceValue(func() error { return e.importImage(name) })
		e.images[name] = once
	}
	e.mu.Unlock()
	return once()
}

func (e *Engine) importImage(name string) error {
	files := map[string]string{} // path in the image: path here
	probe, err := e.session.build("netguard/integration/probe")
	if err != nil {
		return err
	}
	files["/probe"] = probe
	switch name {
	case Probe:
	case Iperf3:
		if err := addIperf3(files); err != nil {
			return err
		}
	default:
		return nil // the test imported or committed it itself
	}
	return e.importFiles(name, files)
}

// Image imports an image of the probe that has labels of its own.
func (e *Engine) Image(name string, labels map[string]string) {
	e.tb.Helper()
	probe, err := e.session.build("netguard/integration/probe")
	e.must(err, "build the probe")
	var changes []string
	for key, value := range labels {
		changes = append(changes, fmt.Sprintf("LABEL %q=%q", key, value))
	}
	e.must(e.importFiles(name, map[string]string{"/probe": probe}, changes...), "make image %s", name)
}

func (e *Engine) importFiles(name string, files map[string]string, changes ...string) error {
	layer, err := pack(files)
	if err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	ctx, cancel := e.ctx()
	defer cancel()
	answer, err := e.Client.ImageImport(ctx,
		image.ImportSource{Source: layer, SourceName: "-"}, name,
		image.ImportOptions{Changes: append([]string{`ENTRYPOINT ["/probe"]`, `CMD ["pause"]`}, changes...)})
	if err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	defer answer.Close()
	if out, err := io.ReadAll(answer); err != nil || bytes.Contains(out, []byte(`"error"`)) {
		return fmt.Errorf("import image %s: %v %s", name, err, out)
	}
	return nil
}

var library = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// addIperf3 adds the program with the libraries that it is linked with.
func addIperf3(files map[string]string) error {
	path, err := exec.LookPath("iperf3")
	if err != nil {
		return fmt.Errorf("find iperf3: %w (install iperf3)", err)
	}
	files["/usr/bin/iperf3"] = path
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return fmt.Errorf("list libraries of iperf3: %w", err)
	}
	for _, m := range library.FindAllSubmatch(out, -1) {
		files[string(m[1])] = string(m[1])
	}
	return nil
}

// pack makes a tar of files, and of an empty /tmp.
func pack(files map[string]string) (io.Reader, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
		return nil, err
	}
	for name, from := range files {
		from, err := filepath.EvalSymlinks(from)
		if err != nil {
			return nil, err
		}
		raw, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Name: name[1:], Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(raw))}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(raw); err != nil {
			return nil, err
		}
	}
	return &buf, w.Close()
}
