package docker

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

const (
	// maxAnswer is how much memory one answer may cost, in bytes. It is enough for some 5,000
	// containers with the labels that Compose gives. Longer lists are asked for in pages.
	maxAnswer = 64 << 20
	// maxEvent is what one event may cost. It carries all labels of its
	// container.
	maxEvent = 16 << 20
	// maxImage is what the answer about an image may cost. It carries its labels.
	maxImage = 4 << 20
	// maxRefusal is how much is read of an error answer, in bytes.
	maxRefusal = 2 << 10

	// costObject and costValue are what decoding adds, in bytes, for each object or list and
	// for each value in it: in memory [{},{},...] is a hundred times as large as its text.
	costObject = 512
	costValue  = 32
)

var (
	errLargeAnswer = errors.New("docker engine's answer is too large or has no end: has a container or image very many labels, or labels of many MB?")
	errLargeEvent  = errors.New("docker engine's event is too large or has no end: has a container very many labels, or labels of many MB?")
)

// bounded limits how much memory the engine's answers take. Docker's client would decode an
// answer of any length.
type bounded struct {
	http.RoundTripper
	most int // how much an answer may cost
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		// The text ends in a log line. If the address is wrong, it may be a whole web page.
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxRefusal), response.Body}
		return response, nil
	}
	body := &costed{ReadCloser: trimOf(r, response.Body), most: b.most, left: b.most, over: errLargeAnswer}
	if strings.Contains(r.URL.Path, "/images/") {
		body.most, body.left = min(b.most, maxImage), min(b.most, maxImage)
	}
	if strings.HasSuffix(r.URL.Path, "/events") {
		body.most, body.left, body.over, body.lines = maxEvent, maxEvent, errLargeEvent, true
	}
	response.Body = body
	if err := cut(r, response); err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return response, nil
}

// costed is a body of JSON that ends with an error when it costs too much.
type costed struct {
	io.ReadCloser
	most, left int
	over       error
	lines      bool // each line has the whole budget
	text       jsonText
}

func (c *costed) Read(p []byte) (int, error) {
	if c.left < 0 {
		return 0, c.over
	}
	n, err := c.ReadCloser.Read(p)
	if c.pay(p[:n]); c.left < 0 {
		return 0, c.over
	}
	return n, err
}

func (c *costed) pay(p []byte) {
	for len(p) > 0 && c.left >= 0 {
		if n := c.text.plain(p); n > 0 { // most of what is long is inside quotes
			c.left -= n
			p = p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		c.left--
		outside := c.text.next(b)
		switch {
		case !outside:
		case b == '{' || b == '[':
			c.left -= costObject
		case b == ',' || b == ':':
			c.left -= costValue
		case b == '\n' && c.lines:
			c.left = c.most
		}
	}
}
