package httpd

import (
	"net"
	"sync"
)

// limit bounds the connections that are open at a time. When there are n, the
// next one closes the oldest: a client that holds its connections without end
// takes nothing from the others, who need theirs for milliseconds.
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

func (c *limited) Close() error {
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		for i, o := range c.of.open {
			if o == c {
				c.of.open = append(c.of.open[:i], c.of.open[i+1:]...)
				break
			}
		}
	})
	return c.Conn.Close()
}
