package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

const (
	// callTimeout bounds each request to the engine.
	callTimeout = 10 * time.Second
	// sandboxTimeout is short: the engine said that the container runs, so nothing holds the
	// container's lock for long.
	sandboxTimeout = 2 * time.Second
)

var (
	// ErrUnreachable says that the engine does not answer.
	ErrUnreachable = errors.New("docker engine cannot be reached")
	// ErrNoSandbox says that a container has no network namespace (now).
	ErrNoSandbox = errors.New("container has no sandbox")
)

// Engine observes one Docker engine. Its methods may be called by several
// goroutines.
type Engine struct {
	host string
	log  *slog.Logger
	most int // how much an answer may cost
	// The times of Watch; tests shorten them.
	pingEvery, pingTimeout time.Duration

	reading sync.Mutex // one Refresh at a time
	images  images
	locals  asker[string, locals]
	members map[string]*members // by network; only Refresh uses it

	mu     sync.Mutex // guards what follows
	client *caller
	hint   Hint
	wake   func() // tells the reader that the hint grew; nil before Watch
	view   View

	// watching says that a stream of events is being read.
	watching atomic.Bool
	// told says that the engine's version and firewall were read since the last connect.
	told atomic.Bool
}

// New returns an observer of the engine at host, such as
// unix:///var/run/docker.sock (the default). It does not connect yet. A TCP
// host's certificates are taken from DOCKER_CERT_PATH.
func New(host string, log *slog.Logger) (*Engine, error) {
	if host == "" {
		host = client.DefaultDockerHost
	}
	e := &Engine{
		host: host, log: log, most: maxAnswer,
		pingEvery: 5 * time.Second, pingTimeout: 5 * time.Second, images: newAsker[imageKey, map[string]string](), locals: newAsker[string, locals](), members: map[string]*members{},
		view: View{Networks: map[string]Network{}, Firewall: defaultFirewall},
	}
	c, err := e.newClient()
	if err != nil {
		return nil, err
	}
	return e, c.Close()
}

// caller is a client whose answers are bounded.
type caller struct {
	*client.Client
	base *http.Transport
}

// Close drops the connections that are idle.
func (c *caller) Close() error {
	c.base.CloseIdleConnections()
	return nil
}

func (e *Engine) newClient() (*caller, error) {
	var base *http.Transport
	bind := func(c *client.Client) error {
		h := c.HTTPClient()
		var ok bool
		if base, ok = h.Transport.(*http.Transport); !ok {
			return fmt.Errorf("bound answers: the transport is a %T", h.Transport)
		}
		h.Transport = bounded{base, e.most}
		scheme := "http" // the client can no longer see which
		if base.TLSClientConfig != nil {
			scheme = "https"
		}
		return errors.Join(client.WithHTTPClient(h)(c), client.WithScheme(scheme)(c))
	}
	c, err := client.NewClientWithOpts(client.WithTLSClientConfigFromEnv(), client.WithHost(e.host), bind)
	if err != nil {
		return nil, fmt.Errorf("use docker host %q: %w (expected unix:///PATH or tcp://HOST:PORT)", e.host, err)
	}
	return &caller{c, base}, nil
}

// Close drops the connections. Watch must have returned.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client == nil {
		return nil
	}
	c := e.client
	e.client = nil
	return c.Close()
}

// View returns what was read last.
func (e *Engine) View() View {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.view
}

// Watching tells whether the engine's events are being followed.
func (e *Engine) Watching() bool { return e.watching.Load() }

// TakeHint returns what the events named since the last call, and forgets it.
func (e *Engine) TakeHint() Hint {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.hint
	e.hint = Hint{}
	return h
}

// Sandbox returns the path of a running container's network namespace. It must
// only be called for a container that runs: for one that is starting it takes
// until the timeout (2 s). The error is ErrNoSandbox when the container is gone,
// or has no namespace of its own.
func (e *Engine) Sandbox(ctx context.Context, container string) (string, error) {
	c, err := e.connected(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	i, err := c.ContainerInspect(ctx, container)
	switch {
	case errdefs.IsNotFound(err):
		return "", fmt.Errorf("inspect container %s: %w", container, ErrNoSandbox)
	case err != nil:
		return "", fmt.Errorf("inspect container %s: %w", container, err)
	case i.NetworkSettings == nil || i.NetworkSettings.SandboxKey == "":
		return "", fmt.Errorf("inspect container %s: %w", container, ErrNoSandbox)
	}
	return i.NetworkSettings.SandboxKey, nil
}

// connected returns the client, and makes one if there is none.
func (e *Engine) connected(ctx context.Context) (*caller, error) {
	e.mu.Lock()
	c := e.client
	e.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return e.connect(ctx)
}

// connect makes a new client, so that both sides agree on the API version anew: after a restart
// the engine may be another version. The client's own negotiation happens only once. If the
// engine answers it with an error, the client keeps the oldest version.
func (e *Engine) connect(ctx context.Context) (*caller, error) {
	c, err := e.newClient()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.pingTimeout)
	defer cancel()
	ping, err := c.Ping(ctx)
	if err == nil && ping.APIVersion == "" {
		err = errors.New("the answer names no API version")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w at %s: %w", ErrUnreachable, e.host, err), c.Close())
	}
	c.NegotiateAPIVersionPing(ping)
	e.mu.Lock()
	old := e.client
	e.client = c
	e.told.Store(false)
	e.mu.Unlock()
	if old != nil {
		return c, old.Close() // its idle connections
	}
	return c, nil
}
