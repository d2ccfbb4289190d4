package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnreachable says that nobody answers at the socket.
var ErrUnreachable = errors.New("agent cannot be reached")

const (
	// answerTimeout is longer than the agent's own limits for reading the kernel.
	answerTimeout = 20 * time.Second
	maxAnswer     = 64 << 20
	// maxQuery leaves room for the other headers in maxHeader.
	maxQuery = maxHeader / 2
)

// Client asks the agent. It holds no connection between two questions.
type Client struct {
	socket string
	http   http.Client
	most   int64 // bytes of an answer
}

// NewClient makes a client of the agent at the socket.
func NewClient(socket string) *Client {
	return &Client{socket: socket, most: maxAnswer, http: http.Client{
		Timeout: answerTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// Status asks what is enforced, for the containers that are named or for all.
// The error is ErrUnreachable, ErrUnknownContainer, or what the agent says.
func (c *Client) Status(ctx context.Context, names ...string) (Status, error) {
	query := url.Values{"container": names}.Encode()
	if len(query) > maxQuery {
		all, err := c.Status(ctx)
		if err != nil {
			return Status{}, err
		}
		some, err := all.Filter(names)
		some.fill()
		return some, err
	}
	var s Status
	if err := c.ask(ctx, http.MethodGet, "/v1/status", query, nil, &s); err != nil {
		return Status{}, err
	}
	s.fill()
	return s, nil
}

// StatusText asks what is enforced for all containers. It gives the agent's own JSON with line
// breaks, without decoding it: with 1,000 endpoints that would take most of the time of an answer.
func (c *Client) StatusText(ctx context.Context) ([]byte, error) {
	text, err := c.fetch(ctx, http.MethodGet, "/v1/status", "", nil)
	if err != nil {
		return nil, err
	}
	var status struct {
		Endpoints []json.RawMessage `json:"endpoints"`
	}
	if err := json.Unmarshal(text, &status); err != nil {
		return nil, c.garbled(err)
	}
	out := bytes.NewBuffer(make([]byte, 0, 2*len(text)))
	if err := json.Indent(out, bytes.TrimSpace(text), "", "  "); err != nil {
		return nil, c.garbled(err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Version asks which netguard runs there.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	err := c.ask(ctx, http.MethodGet, "/v1/version", "", nil, &v)
	return v, err
}

func request(ctx context.Context, method, path, query string, body []byte) (*http.Request, error) {
	u := url.URL{Scheme: "http", Host: "netguard", Path: path, RawQuery: query}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask agent: %w", err)
	}
	return r, nil
}

// ask asks, and decodes the answer. It ignores unknown keys: a newer agent sends them.
func (c *Client) ask(ctx context.Context, method, path, query string, body []byte, to any) error {
	text, err := c.fetch(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, to); err != nil {
		return c.garbled(err)
	}
	return nil
}

// fetch asks, and gives the answer as it came.
func (c *Client) fetch(ctx context.Context, method, path, query string, body []byte) ([]byte, error) {
	request, err := request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if n := response.ContentLength; n > 0 {
		text.Grow(int(min(n, c.most)) + bytes.MinRead)
	}
	switch n, err := text.ReadFrom(io.LimitReader(response.Body, c.most+1)); {
	case err != nil:
		return nil, c.unreachable(ctx, err)
	case n > c.most:
		return nil, fmt.Errorf("read answer of %s: it is larger than %d bytes: is it a netguard agent?", c.socket, c.most)
	case response.StatusCode != http.StatusOK:
		return nil, c.refused(response.Status, text.Bytes())
	}
	return text.Bytes(), nil
}

func (c *Client) garbled(err error) error {
	return fmt.Errorf("read answer of %s: %w (is it a netguard agent?)", c.socket, err)
}

// refused is the agent's own word, as an error.
func (c *Client) refused(status string, text []byte) error {
	var f fault
	if err := json.Unmarshal(text, &f); err != nil || f.Error == "" {
		return fmt.Errorf("read answer of %s: %.100q (is it a netguard agent?)", c.socket, status)
	}
	switch f.Code {
	case codeStopping:
		return &told{fmt.Sprintf("%v at %s: %s", ErrUnreachable, c.socket, f.Error), ErrUnreachable}
	case codeUnknownRequest:
		return fmt.Errorf("%s: it is another version than this command (%s): restart it", f.Error, c.socket)
	}
	for _, k := range kinds {
		if f.Code == k.code {
			return &told{f.Error, k.is}
		}
	}
	return fmt.Errorf("agent at %s: %s", c.socket, f.Error)
}

// told is a sentinel in the words of the agent.
type told struct {
	text string
	is   error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.is }

// unreachable says why nobody answers, and what to do.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("ask agent: %w", ctx.Err())
	}
	const start = "start it with `systemctl start netguard`, or name its socket with --socket"
	var why string
	var timeout net.Error
	switch {
	case errors.Is(err, fs.ErrPermission):
		why = "permission denied: run this as root (sudo)"
	case errors.Is(err, fs.ErrNotExist):
		why = "the socket is not there: is the agent running? " + start
	case errors.Is(err, unix.ECONNREFUSED):
		why = "nobody listens, the agent that made the socket is dead: " + start
	case errors.As(err, &timeout) && timeout.Timeout():
		why = "it does not answer in time: see its log (journalctl -u netguard)"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		why = "it closed the connection before its answer was complete: it stopped, or has too much to do: try again"
	default:
		why = err.Error()
	}
	return fmt.Errorf("%w at %s: %s", ErrUnreachable, c.socket, why)
}
