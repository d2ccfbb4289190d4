package docker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/docker/docker/api/types/container"
)

// A container's creator decides how large the engine's answer about it is: Docker takes any
// number of labels. No such container may hide the others. So where a page of one container is
// too large, the page is read again, and trim takes out what the creator fills.

// maxTrimmed is how long an answer may be before trim, in bytes.
const maxTrimmed = 1 << 30

// trimmable are the keys whose values trim empties. Docker writes them just so. A key in another
// spelling stays, and costs. The decoder would take it too.
var trimmable = [...]string{"Labels", "Ports", "Mounts", "Command", "Annotations"}

// trimming is the key of the trim in the context of a question.
type trimming struct{}

// trim is a body that lists containers, without the contents of their trimmable values: it has
// {} for {"a":"b"}. It keeps no more than a few bytes, whatever is in the body.
type trim struct {
	io.ReadCloser
	left    int // how many bytes may still come
	largest int // of trimmable: the key of the longest contents
	length  int // of these contents

	text     jsonText
	depth    int
	name     [16]byte // the start of the last string
	named    int      // its length
	key      int      // of trimmable, whose value comes next; -1 for no such key
	inside   bool     // what is read belongs to such a value
	outer    int      // the depth outside of the value
	contents int      // the length of the value so far
}

// trimmed lists the containers of a page whose labels are too large to read. It gives them
// without labels.
func (r *reader) trimmed(ctx context.Context, o container.ListOptions) ([]*Container, error) {
	t := &trim{left: maxTrimmed}
	page, err := r.page(context.WithValue(ctx, trimming{}, t), o)
	for _, c := range page {
		c.Unread = t.why(c.Name)
	}
	return page, err
}

// why says why the labels of a container are not known.
func (t *trim) why(name string) string {
	const size = maxAnswer >> 20
	what := trimmable[t.largest]
	if what == "Labels" {
		return fmt.Sprintf("the labels of %.80s are too large to read (more than %d MiB in memory): create it again with fewer", name, size)
	}
	return fmt.Sprintf("what docker lists of %.80s is too large to read (more than %d MiB in memory), most of all its %s, so its labels are not known: create it again with less of that",
		name, size, strings.ToLower(what))
}

// trimOf puts the trim that a question has, if any, before the body of its answer.
func trimOf(r *http.Request, body io.ReadCloser) io.ReadCloser {
	t, ok := r.Context().Value(trimming{}).(*trim)
	if !ok {
		return body
	}
	*t = trim{ReadCloser: body, left: t.left, key: -1}
	return t
}

func (t *trim) Read(p []byte) (int, error) {
	for {
		n, err := t.ReadCloser.Read(p)
		if t.left -= n; t.left < 0 {
			return 0, errLargeAnswer
		}
		kept := p[:0]
		for rest := p[:n]; len(rest) > 0; {
			if skipped := t.skip(rest); skipped > 0 {
				rest = rest[skipped:]
				continue
			}
			if t.keeps(rest[0]) {
				kept = append(kept, rest[0])
			}
			rest = rest[1:]
		}
		if len(kept) > 0 || err != nil || len(p) == 0 {
			return len(kept), err
		}
	}
}

// skip tells how much of p is plain text in a value that goes: it needs no look at each byte.
func (t *trim) skip(p []byte) int {
	if !t.inside {
		return 0
	}
	n := t.text.plain(p)
	t.drop(n)
	return n
}

// drop counts contents that go.
func (t *trim) drop(n int) {
	if t.contents += n; t.contents > t.length {
		t.largest, t.length = t.key, t.contents
	}
}

// keeps tells whether the next byte of the body stays.
func (t *trim) keeps(b byte) bool {
	depth, quoted := t.depth, t.text.quoted
	outside := t.text.next(b)
	switch {
	case outside && (b == '{' || b == '['):
		t.depth++
	case outside && (b == '}' || b == ']'):
		t.depth--
	}
	if t.inside {
		if t.inside = t.text.quoted || t.depth > t.outer; t.inside {
			t.drop(1)
			return false
		}
		t.key = -1
		return true
	}
	switch {
	case t.text.quoted && !quoted: // a string begins
		t.named = 0
	case t.text.quoted:
		if t.named < len(t.name) {
			t.name[t.named] = b
		}
		t.named++
	case b == ':' && outside:
		t.key = t.match()
		return true
	}
	if t.key >= 0 && !space(b) {
		// Not inside a number or a word: these end without a sign of their own.
		if t.inside = t.text.quoted || t.depth > depth; t.inside {
			t.outer, t.contents = depth, 0
		} else {
			t.key = -1
		}
	}
	return true
}

// match tells which of trimmable the last string was, if it is a key of a container in the list,
// or of its HostConfig; -1 for none. Further inside are keys that others choose, such as names of
// networks.
func (t *trim) match() int {
	if t.depth == 2 || t.depth == 3 {
		for i, name := range trimmable {
			if t.named == len(name) && bytes.Equal(t.name[:t.named], []byte(name)) {
				return i
			}
		}
	}
	return -1
}

func space(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }
