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

// Slow delays every answer.
func Slow(d time.Duration) Spoiler {
	return func(_ http.ResponseWriter, r *http.Request, _ string, pass func()) {
		select {
		case <-time.After(d):
			pass()
		case <-r.Context().Done():
		}
	}
}

// Forgetful answers that no container and no network exists.
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

// Saying answers requests with this text if their paths have this beginning.
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

// Endless answers requests whose paths have this beginning: with a first text, and
// then with a second text again and again.
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

// Stale answers requests for lists and networks with the last answers from before
// Spoil was called. Other requests pass.
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
