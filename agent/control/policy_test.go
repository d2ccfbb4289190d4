package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/netpolicy"
)

// judge is a PolicySource whose answers the test decides.
type judge struct {
	explain func(ctx context.Context, src, dst, service string) (netpolicy.Explanation, error)
	plan    func(ctx context.Context, sources []netpolicy.Source) (netpolicy.Delta, error)
}

func (j judge) Explain(ctx context.Context, src, dst, service string) (netpolicy.Explanation, error) {
	return j.explain(ctx, src, dst, service)
}

func (j judge) Plan(ctx context.Context, sources []netpolicy.Source) (netpolicy.Delta, error) {
	return j.plan(ctx, sources)
}

func with(p PolicySource) func(*Server) { return func(s *Server) { s.Policies(p) } }

func post(t *testing.T, conn net.Conn, path, body string) (int, fault) {
	t.Helper()
	go fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var f fault
	if err := json.NewDecoder(response.Body).Decode(&f); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, f
}

func TestExplain(t *testing.T) {
	t.Run("goes_there_and_back", func(t *testing.T) {
		want := netpolicy.Explanation{Note: "a note & <more>", Answers: []netpolicy.Answer{
			{Path: "forward", Network: "back", Src: "172.18.0.2", Dst: "172.18.0.3", Service: "tcp/80", Policies: []string{"db"}, Rules: []string{"db ingress[0]"}, Sentence: "because"},
		}}
		asked := ""
		s := start(t, always(shop), with(judge{explain: func(_ context.Context, src, dst, service string) (netpolicy.Explanation, error) {
			asked = fmt.Sprintf("%q %q %q", src, dst, service)
			return want, nil
		}}))
		for _, names := range [][3]string{{"a b&c=d", "2001:db8::1", "tcp/80"}, {"\x00\x1b[2J", "host", ""}} {
			got, err := NewClient(s.socket).Explain(t.Context(), names[0], names[1], names[2])
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
			if q := fmt.Sprintf("%q %q %q", names[0], names[1], names[2]); asked != q {
				t.Errorf("%s was asked, not %s", asked, q)
			}
		}
	})
	for name, test := range map[string]struct {
		err  error
		is   error
		want string
	}{
		"an_unknown_name":      {UnknownParty("shop-bd-1", []string{"shop-web-1", "shop-db-1"}), ErrUnknownParty, `"shop-bd-1" is no container and no address, neither host nor external (did you mean "shop-db-1"?): ` + "`netguard status`"},
		"a_misspelt_entity":    {UnknownParty("externl", nil), ErrUnknownParty, `did you mean "external"?`},
		"an_unknown_one_said":  {fmt.Errorf("a source's own words: %w", ErrUnknownParty), ErrUnknownParty, "a source's own words"},
		"a_service":            {fmt.Errorf("%w: tcp", ErrBadService), ErrBadService, "no service: tcp"},
		"what_it_cannot":       {errors.New("no endpoints yet"), nil, "no endpoints yet"},
		"an_interrupted_one":   {context.DeadlineExceeded, nil, "deadline"},
		"a_name_with_controls": {UnknownParty("\x1b[2J", nil), ErrUnknownParty, `"\x1b[2J" is no container`},
	} {
		t.Run("brings_back/"+name, func(t *testing.T) {
			s := start(t, always(shop), with(judge{explain: func(context.Context, string, string, string) (netpolicy.Explanation, error) {
				return netpolicy.Explanation{}, test.err
			}}))
			_, err := NewClient(s.socket).Explain(t.Context(), "a", "b", "")
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrUnreachable) {
				t.Error(err)
			}
			for _, sentinel := range []error{ErrUnknownParty, ErrBadService} {
				if errors.Is(err, sentinel) != (sentinel == test.is) {
					t.Errorf("%v: %v is %v", err, sentinel, errors.Is(err, sentinel))
				}
			}
		})
	}
	t.Run("needs_both_ends", func(t *testing.T) {
		s := start(t, always(shop), with(judge{}))
		for _, query := range []string{"", "?src=a", "?dst=b", "?src=&dst=b"} {
			if code, body := ask(t, s, "GET", "/v1/policy/explain"+query); code != 400 || body["code"] != "bad_request" {
				t.Errorf("%s: %d %v", query, code, body)
			}
		}
	})
	t.Run("knows_that_no_name_is_that_long_or_empty", func(t *testing.T) {
		client := NewClient("/nonexistent")
		for _, name := range []string{"", strings.Repeat("x", maxQuery)} {
			if _, err := client.Explain(t.Context(), "a", name, ""); !errors.Is(err, ErrUnknownParty) || len(err.Error()) > 1000 {
				t.Error(err)
			}
		}
	})
	t.Run("bounds_the_time_of_the_source", func(t *testing.T) {
		s := start(t, always(shop), with(judge{explain: func(ctx context.Context, _, _, _ string) (netpolicy.Explanation, error) {
			<-ctx.Done()
			return netpolicy.Explanation{}, ctx.Err()
		}}), func(s *Server) { s.timeouts.source = 20 * time.Millisecond })
		if code, body := ask(t, s, "GET", "/v1/policy/explain?src=a&dst=b"); code != 500 || body["code"] != codeFailed {
			t.Errorf("%d %v", code, body)
		}
	})
}

func TestPlan(t *testing.T) {
	delta := netpolicy.Delta{
		Endpoints:   []netpolicy.EndpointChange{{Container: "db", Network: "back", Direction: "ingress", Before: []string{}, After: []string{"db"}, Sentence: "it closes"}},
		Connections: []netpolicy.ConnectionChange{{From: []string{"a"}, To: []string{"b"}, Networks: []string{"back"}, Service: "tcp/80", Policies: []string{"db"}, Sentence: "it goes"}},
		Truncated:   true,
	}
	t.Run("goes_there_and_back", func(t *testing.T) {
		sources := []netpolicy.Source{
			{Name: "/etc/x y.yaml", Data: []byte("name: \"a\\n\"\r\n# <é> \u2028\t\n")},
			{Name: "b.yaml", Data: []byte{}},
		}
		var got []netpolicy.Source
		s := start(t, always(shop), with(judge{plan: func(_ context.Context, given []netpolicy.Source) (netpolicy.Delta, error) {
			got = given
			return delta, nil
		}}))
		d, err := NewClient(s.socket).Plan(t.Context(), sources)
		if diff := cmp.Diff(delta, d, cmp.Comparer(func(a, b netpolicy.ConnectionChange) bool { return fmt.Sprint(a) == fmt.Sprint(b) })); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if diff := cmp.Diff(sources, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("of_no_files_is_one_as_well", func(t *testing.T) {
		s := start(t, always(shop), with(judge{plan: func(_ context.Context, given []netpolicy.Source) (netpolicy.Delta, error) {
			if len(given) > 0 {
				t.Error(given)
			}
			return netpolicy.Delta{}, nil
		}}))
		d, err := NewClient(s.socket).Plan(t.Context(), nil)
		if err != nil || !d.Empty() || d.Endpoints == nil || d.Connections == nil {
			t.Errorf("%+v, %v", d, err)
		}
	})
	t.Run("brings_back_the_faults_of_files", func(t *testing.T) {
		s := start(t, always(shop), with(judge{plan: func(_ context.Context, given []netpolicy.Source) (netpolicy.Delta, error) {
			return netpolicy.Delta{}, fmt.Errorf("plan: %w", netpolicy.Load(given).Faults())
		}}))
		_, err := NewClient(s.socket).Plan(t.Context(), []netpolicy.Source{{Name: "db.yaml", Data: []byte("nam: db\n")}})
		if !errors.Is(err, ErrPolicyFaults) || !strings.HasPrefix(err.Error(), `db.yaml:1:1: `) {
			t.Error(err)
		}
	})
	t.Run("sends_nothing_that_JSON_would_change", func(t *testing.T) {
		_, err := NewClient("/nonexistent").Plan(t.Context(), []netpolicy.Source{{Name: "db.yaml", Data: []byte("name: \xff\n")}})
		if err == nil || !strings.Contains(err.Error(), "db.yaml is not UTF-8") {
			t.Error(err)
		}
	})
	t.Run("bounds_what_is_sent", func(t *testing.T) {
		big := []netpolicy.Source{{Name: "db.yaml", Data: []byte(strings.Repeat("#", maxPlan))}}
		if _, err := NewClient("/nonexistent").Plan(t.Context(), big); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxPlan)) {
			t.Error(err)
		}
	})
}

func TestPlan_with_bad_clients(t *testing.T) {
	none := judge{plan: func(context.Context, []netpolicy.Source) (netpolicy.Delta, error) {
		return netpolicy.Delta{}, errors.New("it was asked")
	}}
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"a_body_that_is_no_JSON":      {"name: db", 400, "bad_request"},
		"a_body_of_another_shape":     {`{"files": "db.yaml"}`, 400, "bad_request"},
		"a_body_without_an_end":       {`{"files": [`, 400, "bad_request"},
		"a_body_that_is_too_large":    {`{"files": [{"name": "` + strings.Repeat("x", maxPlan) + `"}]}`, 413, "too_large"},
		"more_files_than_are_planned": {`{"files": [{}` + strings.Repeat(",{}", MaxPlanFiles) + `]}`, 413, "too_large"},
		"as_many_files_as_may_be":     {`{"files": [{}` + strings.Repeat(",{}", MaxPlanFiles-1) + `]}`, 500, codeFailed},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, always(shop), with(none))
			if status, f := post(t, dial(t, s), "/v1/policy/plan", test.body); status != test.status || f.Code != test.code {
				t.Errorf("%d %+v", status, f)
			}
		})
	}
	t.Run("a_body_that_does_not_come_gives_its_place_away", func(t *testing.T) {
		s := start(t, always(shop), with(judge{plan: func(context.Context, []netpolicy.Source) (netpolicy.Delta, error) { return netpolicy.Delta{}, nil }}),
			func(s *Server) { s.timeouts.header = 50 * time.Millisecond })
		slow := dial(t, s)
		io.WriteString(slow, "POST /v1/policy/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		if _, err := NewClient(s.socket).Plan(t.Context(), nil); err != nil {
			t.Error(err)
		}
		awaitHangUp(t, slow)
	})
	t.Run("one_at_a_time_and_longer_than_a_request_takes_to_come", func(t *testing.T) {
		const header = 200 * time.Millisecond
		entered, free := make(chan struct{}, 10), make(chan struct{})
		// More than the server reads together with the header.
		large := []netpolicy.Source{{Name: "db.yaml", Data: []byte(strings.Repeat("#", 1<<18))}}
		s := start(t, always(shop), with(judge{plan: func(ctx context.Context, _ []netpolicy.Source) (netpolicy.Delta, error) {
			entered <- struct{}{}
			<-free
			return netpolicy.Delta{}, ctx.Err()
		}}), func(s *Server) { s.timeouts.header = header })
		answers := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := NewClient(s.socket).Plan(context.Background(), large)
				answers <- err
			}()
		}
		<-entered
		// Longer than the server waits for a request: with its deadline the other's
		// body would not be read any more.
		select {
		case <-entered:
			t.Error("two at a time")
		case <-time.After(3 * header):
		}
		close(free)
		for range 2 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("one_that_leaves_ends_the_planning", func(t *testing.T) {
		began, ended := make(chan struct{}), make(chan struct{})
		s := start(t, always(shop), with(judge{plan: func(ctx context.Context, _ []netpolicy.Source) (netpolicy.Delta, error) {
			close(began)
			<-ctx.Done()
			close(ended)
			return netpolicy.Delta{}, ctx.Err()
		}}))
		conn := dial(t, s)
		io.WriteString(conn, "POST /v1/policy/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
		<-began
		conn.Close()
		<-ended
	})
}

func TestServer_without_policies(t *testing.T) {
	s := start(t, always(shop))
	client := NewClient(s.socket)
	_, explain := client.Explain(t.Context(), "a", "b", "")
	_, plan := client.Plan(t.Context(), nil)
	for _, err := range []error{explain, plan} {
		if err == nil || !strings.Contains(err.Error(), "answers no questions about policies") {
			t.Error(err)
		}
	}
	if code, body := ask(t, s, "GET", "/v1/policy/explain?src=a&dst=b"); code != 501 || body["code"] != "no_policies" {
		t.Errorf("%d %v", code, body)
	}
}
