package httpd

import (
	"context"
	"net"
	"slices"
	"sync"
)

// limit bounds how many connections are open at a time. If there are n, the next one closes the
// oldest. So a client that holds connections without end cannot shut out the others, which need
// theirs for milliseconds. Connections for which Keep was called do not count.
func limit(l net.Listener, n int) net.Listener {
	return &limiter{Listener: l, most: n}
}

type limiter struct {
	net.Listener
	most int

	mu   sync.Mutex
	open []*limited // by age
}

type limited struct {
	net.Conn
	of   *limiter
	once sync.Once
	// Under of.mu.
	closed bool
	end    context.CancelFunc // of what is bound to it
}

func (l *limiter) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &limited{Conn: conn, of: l}
	l.mu.Lock()
	var oldest *limited
	if len(l.open) >= l.most {
		oldest = l.open[0]
	}
	l.open = append(l.open, c)
	l.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return c, nil
}

// forget takes the connection out of those that count.
func (c *limited) forget() {
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		if i := slices.Index(c.of.open, c); i >= 0 {
			c.of.open = slices.Delete(c.of.open, i, i+1)
		}
	})
}

// bind gives a context that ends when the connection is closed.
func (c *limited) bind(ctx context.Context) context.Context {
	ctx, end := context.WithCancel(ctx)
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.end = end
	if c.closed {
		end()
	}
	return ctx
}

func (c *limited) Close() error {
	c.forget()
	c.of.mu.Lock()
	c.closed = true
	end := c.end
	c.of.mu.Unlock()
	if end != nil {
		end()
	}
	return c.Conn.Close()
}

type connection struct{}

// Keep keeps the connection of a request from being closed for a newer one, until the request's
// handler returns. ctx is the request's context. The caller bounds how many connections it
// keeps.
func Keep(ctx context.Context) {
	if c, ok := ctx.Value(connection{}).(*limited); ok {
		c.forget()
	}
}
