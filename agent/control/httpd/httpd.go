// Package httpd runs an HTTP server as a task that ends with its context and
// leaves nothing running, whatever its clients do.
package httpd

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds are what all clients together may take.
type Bounds struct {
	Conns int           // open at a time
	Stop  time.Duration // for answers that are on the way when ctx ends
}

// Serve answers at l until ctx ends, and returns ctx's error then. The context of each request
// ends with ctx, and handlers must return soon after. When Serve returns, no request is being
// answered any more. Deadlines are the server's own. Without them a client can hold a
// connection until others need it.
func Serve(ctx context.Context, server *http.Server, l net.Listener, b Bounds) error {
	// An idle connection is one that can be held.
	server.SetKeepAlivesEnabled(false)
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		// http.Server notices a closed connection only when it reads from it. It does not read
		// while a request has a body that the handler does not read.
		if c, ok := c.(*limited); ok {
			ctx = c.bind(ctx)
		}
		return context.WithValue(ctx, connection{}, c)
	}
	c := counter{next: server.Handler}
	server.Handler = &c
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(limit(l, b.Conns)) }()
	var err error
	select {
	case err = <-ended:
		server.Close()
	case <-ctx.Done():
		err = ctx.Err()
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.Stop)
		defer cancel()
		if server.Shutdown(soon) != nil {
			server.Close()
		}
		<-ended
	}
	c.close()
	return err
}

// counter knows which requests are being answered: http.Server closes their
// connections but does not wait for their goroutines.
type counter struct {
	next http.Handler

	mu      sync.Mutex
	stopped bool // no request begins any more
	now     sync.WaitGroup
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return
	}
	c.now.Add(1)
	c.mu.Unlock()
	defer c.now.Done()
	c.next.ServeHTTP(w, r)
}

func (c *counter) close() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.now.Wait()
}
