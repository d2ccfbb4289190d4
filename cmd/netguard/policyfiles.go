package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"netguard/agent/control"
	"netguard/internal/plain"
	"netguard/internal/smallfile"
	"netguard/netpolicy"
)

// standardInput is what a text from there is called in faults.
const standardInput = "<stdin>"

// policyFiles are files that were read, and faults of those that could not be.
type policyFiles struct {
	sources []netpolicy.Source
	faults  netpolicy.Faults
	seen    map[string]bool // paths, so that none is read twice
}

// add reads a file, or the standard input, or the files of a directory that an agent would read
// there. The error is ctx's, if ctx ended meanwhile.
func (p *policyFiles) add(ctx context.Context, name string, stdin io.Reader) error {
	if name == "-" {
		if p.first(name) {
			return p.addText(ctx, standardInput, func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil })
		}
		return nil
	}
	info, err := os.Stat(name)
	if err != nil {
		p.fault(name, err)
		return nil
	}
	if info.IsDir() {
		return p.addDir(ctx, name)
	}
	return p.addFile(ctx, name)
}

// first tells whether a path is seen for the first time.
func (p *policyFiles) first(name string) bool {
	if path, err := filepath.Abs(name); err == nil && name != "-" {
		name = path
	}
	if p.seen[name] {
		return false
	}
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	p.seen[name] = true
	return true
}

// addText opens and reads to the end, or until the text is too large. It stops when ctx ends: a pipe
// may have no writer, and a pipe or a terminal may never come to an end.
func (p *policyFiles) addText(ctx context.Context, name string, open func() (io.ReadCloser, error)) error {
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		from, err := open()
		if err != nil {
			read <- result{err: err}
			return
		}
		defer from.Close()
		// One byte more than is allowed: netpolicy says that it is too large.
		data, err := io.ReadAll(io.LimitReader(from, netpolicy.MaxFileBytes+1))
		read <- result{data, err}
	}()
	select {
	case r := <-read:
		if r.err != nil {
			p.fault(name, r.err)
		} else {
			p.sources = append(p.sources, netpolicy.Source{Name: name, Data: r.data})
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *policyFiles) addFile(ctx context.Context, name string) error {
	if !p.first(name) {
		return nil
	}
	return p.addText(ctx, name, func() (io.ReadCloser, error) { return os.Open(name) })
}

// addDir reads what an agent would read in a directory. If an agent could not read the
// directory, that is a fault.
func (p *policyFiles) addDir(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		p.fault(dir, err)
		return nil
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !isPolicyFile(e.Name()) })
	if len(entries) > control.MaxPlanFiles {
		p.say(dir, "it has %d policy files: an agent reads at most %d, put several policies into one file", len(entries), control.MaxPlanFiles)
		return nil
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name := filepath.Join(dir, e.Name())
		if !p.first(name) {
			continue
		}
		if data, err := smallfile.Read(name, netpolicy.MaxFileBytes); err != nil {
			p.fault(name, err)
		} else {
			p.sources = append(p.sources, netpolicy.Source{Name: name, Data: data})
		}
	}
	return nil
}

// isPolicyFile tells whether an agent reads a file of a policy directory.
func isPolicyFile(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(name, ".")
}

func (p *policyFiles) fault(name string, err error) {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathError.Err // the path is said already
	}
	switch {
	case errors.Is(err, smallfile.ErrNotRegular):
		p.say(name, "it is not a regular file: move it out of the policy directory")
	case errors.Is(err, fs.ErrNotExist):
		p.say(name, "there is no such file or directory: is the name right?")
	case errors.Is(err, fs.ErrPermission):
		p.say(name, "it cannot be read: permission denied: run this as root (sudo)")
	default:
		p.say(name, "it cannot be read: %v", err)
	}
}

func (p *policyFiles) say(name, format string, args ...any) {
	p.faults = append(p.faults, netpolicy.Fault{Place: netpolicy.Place{File: name, Line: 1, Column: 1}, Text: fmt.Sprintf(format, args...)})
}

// writeFaults writes one fault a line, as compilers do. They may quote strangers.
func writeFaults(to io.Writer, faults netpolicy.Faults) {
	for _, f := range faults {
		fmt.Fprintln(to, plain.Text(f.Error()))
	}
}
