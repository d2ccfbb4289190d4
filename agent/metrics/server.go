package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"netguard/agent/control"
	"netguard/agent/control/httpd"
)

const (
	maxConns   = 16
	maxScrapes = 4 // at a time
	maxHeader  = 16 << 10
)

// Server is the listener for Prometheus.
type Server struct {
	address string
	source  control.Source
	log     *slog.Logger
	header  time.Duration // time for a client to send its request, and then to read the answer
	ready   chan struct{}
	at      net.Addr
}

// New makes a server that reads source at each scrape.
func New(address string, source control.Source, log *slog.Logger) *Server {
	return &Server{address: address, source: source, log: log, header: 5 * time.Second, ready: make(chan struct{})}
}

// Ready is closed when the server answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Serve answers at /metrics until ctx ends, and returns ctx's error then.
func (s *Server) Serve(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w (choose another address with --metrics, \"\" for none)", err)
	}
	s.at = l.Addr()
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		&collector{ctx, s.source, s.log},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.log.Handler(), slog.LevelError),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "netguard: the metrics are at /metrics")
	})
	server := &http.Server{
		Handler:           http.MaxBytesHandler(mux, 0),
		ReadHeaderTimeout: s.header,
		ReadTimeout:       s.header,
		WriteTimeout:      s.header + scrapeTimeout + s.header,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	close(s.ready)
	err = httpd.Serve(ctx, server, l, httpd.Bounds{Conns: maxConns, Stop: time.Second})
	if ctx.Err() == nil {
		return fmt.Errorf("serve metrics at %s: %w", s.address, err)
	}
	return err
}
