package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"netguard/agent/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files")

type source func(context.Context) (control.Status, error)

func (f source) Status(ctx context.Context) (control.Status, error) { return f(ctx) }

func always(s control.Status) source {
	return func(context.Context) (control.Status, error) { return s, nil }
}

var quiet = slog.New(slog.DiscardHandler)

var shop = control.Status{
	Mode: "enforce", InSync: true,
	Docker:     control.Docker{Version: "28.5.2", Firewall: "iptables", Connected: true},
	Shaper:     control.Shaper{Leaf: "fq_codel"},
	VerifiedAt: time.UnixMilli(1_700_000_000_250),
	Findings:   []string{"one"},
	Endpoints: []control.Endpoint{
		{
			Container: "shop-db-1", Network: "back", State: control.Admitted, Denied: 7,
			Ingress:    control.Traffic{RateBPS: 50_000_000, Bytes: 1500, Packets: 1, Drops: 2},
			Egress:     control.Traffic{Bytes: 3000, Packets: 3},
			Violations: control.Violations{MAC: 1, ARP: 2, IP: 3, ND: 4, Ethertype: 5, DHCP: 6},
		},
		{Container: "shop-db-1", Network: "back", State: control.Quarantined}, // of the container that it replaces
		{Container: "odd\xff\n\"", Network: "back", State: control.Quarantined, Findings: []string{"a", "b"}},
		{Container: "vpn", Network: "lan", State: control.Unmanaged},
	},
}

func gather(t *testing.T, src control.Source) *collector {
	return &collector{t.Context(), src, quiet}
}

func TestCollector(t *testing.T) {
	t.Run("tells_all_that_status_tells", func(t *testing.T) {
		const golden = "testdata/shop.golden"
		if *update {
			registry := prometheus.NewRegistry()
			registry.MustRegister(gather(t, always(shop)))
			if err := prometheus.WriteToTextfile(golden, registry); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.Open(golden)
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		if err := testutil.CollectAndCompare(gather(t, always(shop)), want); err != nil {
			t.Error(err)
		}
	})
	t.Run("keeps_the_rules_of_names", func(t *testing.T) {
		problems, err := testutil.CollectAndLint(gather(t, always(shop)))
		if err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
	t.Run("is_down_when_the_source_fails", func(t *testing.T) {
		failing := source(func(context.Context) (control.Status, error) { return control.Status{}, errors.New("no") })
		if n := testutil.CollectAndCount(gather(t, failing)); n != 1 {
			t.Errorf("%d series", n)
		}
		if err := testutil.CollectAndCompare(gather(t, failing), strings.NewReader(`# HELP netguard_up Whether the agent could read what the kernel holds (1) or not (0); then the others are missing.
# TYPE netguard_up gauge
netguard_up 0
`)); err != nil {
			t.Error(err)
		}
	})
	t.Run("names_reach_no_terminal", func(t *testing.T) {
		nasty := "ev\x1b[31mil\nfake\u009b2J\a\u202egnp"
		s := start(t, always(control.Status{Docker: control.Docker{Version: nasty},
			Endpoints: []control.Endpoint{{Container: nasty, Network: nasty, State: control.Admitted}}}))
		_, text := get(t, s, "/metrics")
		if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%q", text)
		}
		if !strings.Contains(text, `ev\\x1b[31mil\\nfake`) {
			t.Error("the name cannot be told")
		}
	})
	t.Run("traffic_and_strangers'_names_make_no_series", func(t *testing.T) {
		count := func(change func(*control.Endpoint)) int {
			s := control.Status{}
			for i := range 50 {
				e := control.Endpoint{Container: fmt.Sprint("c", i), Network: "n", State: control.Admitted}
				change(&e)
				s.Endpoints = append(s.Endpoints, e)
			}
			return testutil.CollectAndCount(gather(t, always(s)))
		}
		calm := count(func(*control.Endpoint) {})
		busy := count(func(e *control.Endpoint) {
			e.Ingress.Bytes, e.Denied, e.Violations.MAC = 1e18, 1e18, 1e18
			e.ID, e.MAC, e.Reason = "x", "y", "z"
			e.SharedBy, e.Findings, e.Policy.Ingress = make([]string, 100), make([]string, 100), make([]string, 100)
		})
		if calm != busy {
			t.Errorf("%d series became %d", calm, busy)
		}
	})
}

// start serves on a free port of the loopback.
func start(t *testing.T, src control.Source, change ...func(*Server)) *Server {
	t.Helper()
	s := New("127.0.0.1:0", src, quiet)
	for _, c := range change {
		c(s)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("serve ended with %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + s.at.String() + path)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(body)
}

func TestServer(t *testing.T) {
	t.Run("answers_a_scrape", func(t *testing.T) {
		code, body := get(t, start(t, always(shop)), "/metrics")
		for _, want := range []string{
			`netguard_endpoint_bytes_total{container="shop-db-1",direction="ingress",network="back"} 1500`,
			"go_goroutines", "process_open_fds",
		} {
			if code != 200 || !strings.Contains(body, want) {
				t.Errorf("%d, no %s in %s", code, want, body)
			}
		}
	})
	t.Run("says_where_the_metrics_are", func(t *testing.T) {
		s := start(t, always(shop))
		if code, body := get(t, s, "/"); code != 200 || !strings.Contains(body, "/metrics") {
			t.Error(code, body)
		}
		if code, _ := get(t, s, "/debug/pprof/"); code != 404 {
			t.Error(code)
		}
	})
	t.Run("lets_few_scrape_at_a_time", func(t *testing.T) {
		began, free := make(chan struct{}, maxScrapes), make(chan struct{})
		s := start(t, source(func(context.Context) (control.Status, error) {
			began <- struct{}{}
			<-free
			return shop, nil
		}))
		answers := make(chan int, maxScrapes)
		for range maxScrapes {
			go func() {
				code, _ := get(t, s, "/metrics")
				answers <- code
			}()
		}
		for range maxScrapes {
			<-began
		}
		if code, _ := get(t, s, "/metrics"); code != http.StatusServiceUnavailable {
			t.Error(code)
		}
		close(free)
		for range maxScrapes {
			if code := <-answers; code != 200 {
				t.Error(code)
			}
		}
	})
	t.Run("a_silent_client_is_cut_off", func(t *testing.T) {
		s := start(t, always(shop), func(s *Server) { s.header = 20 * time.Millisecond })
		conn, err := net.Dial("tcp", s.at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("a_scrape_under_way_ends_with_it", func(t *testing.T) {
		began := make(chan struct{})
		s := New("127.0.0.1:0", source(func(ctx context.Context) (control.Status, error) {
			close(began)
			<-ctx.Done()
			return control.Status{}, ctx.Err()
		}), quiet)
		ctx, stop := context.WithCancel(t.Context())
		ended, answer := make(chan error, 1), make(chan string, 1)
		go func() { ended <- s.Serve(ctx) }()
		<-s.Ready()
		go func() {
			_, body := get(t, s, "/metrics")
			answer <- body
		}()
		<-began
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if body := <-answer; !strings.Contains(body, "netguard_up 0") {
			t.Error(body)
		}
	})
	t.Run("an_address_in_use_is_an_error_with_a_remedy", func(t *testing.T) {
		s := start(t, always(shop))
		err := New(s.at.String(), always(shop), quiet).Serve(t.Context())
		if err == nil || !strings.Contains(err.Error(), "--metrics") {
			t.Error(err)
		}
	})
}
