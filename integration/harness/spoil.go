package harness

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"time"
)

// Failing answers everything with 500.
func Failing(w http.ResponseWriter, _ *http.Request, _ string, _ func()) {
	http.Error(w, "the engine is \x1b[31mnot well\x1b[0m", http.StatusInternalServerError)
}

// Slow has every answer wait.
func Slow(d time.Duration) Spoiler {
	return func(_ http.ResponseWriter, r *http.Request, _ string, pass func()) {
		select {
		case <-time.After(d):
			pass()
		case <-r.Context().Done():
		}
	}
}

// Forgetful says of every container and every network that there is no such thing.
func Forgetful(w http.ResponseWriter, _ *http.Request, path string, pass func()) {
	switch {
	case path == "/containers/json":
		_, _ = io.WriteString(w, "[]") // the agent may be gone
	case strings.HasPrefix(path, "/containers/"), strings.HasPrefix(path, "/networks/"):
		http.Error(w, `{"message":"no such thing"}`, http.StatusNotFound)
	default:
		pass()
	}
}

// Saying answers requests for paths that begin so with this text.
func Saying(prefix, text string) Spoiler {
	return func(w http.ResponseWriter, _ *http.Request, path string, pass func()) {
		if !strings.HasPrefix(path, prefix) {
			pass()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text) // the agent may be gone
	}
}

// Endless answers requests for paths that begin so with a text, and then another
// again and again.
func Endless(prefix, first, then string) Spoiler {
	block := bytes.Repeat([]byte(then), max(1, 64<<10/len(then)))
	return func(w http.ResponseWriter, _ *http.Request, path string, pass func()) {
		if !strings.HasPrefix(path, prefix) {
			pass()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, err := io.WriteString(w, first)
		for err == nil {
			_, err = w.Write(block)
		}
	}
}

// Stale answers requests for lists and networks with what they were answered last,
// before Spoil was called; others pass.
func (p *Proxy) Stale() Spoiler {
	p.mu.Lock()
	old := map[string]answer{}
	for url, a := range p.answers {
		old[url] = a
	}
	p.mu.Unlock()
	return func(w http.ResponseWriter, r *http.Request, path string, pass func()) {
		a, known := old[r.URL.Path+"?"+r.URL.RawQuery]
		if !known || path == "/_ping" {
			pass()
			return
		}
		for key, values := range a.header {
			w.Header()[key] = values
		}
		w.WriteHeader(a.code)
		_, _ = w.Write(a.body) // the agent may be gone
	}
}
