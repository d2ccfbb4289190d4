package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"netguard/netpolicy"
)

// PolicySource knows the policies in force. Both methods return soon after their context ends,
// or within seconds if they only compute. Several goroutines may call them at a time.
type PolicySource interface {
	// Explain tells what the policies in force say of connections. A party is a
	// container's name or the beginning of its id, host, external, or an address;
	// service is as netpolicy.ParseService reads it, or "" for all. The error is
	// ErrUnknownParty or ErrBadService where one of them cannot be told.
	Explain(ctx context.Context, src, dst, service string) (netpolicy.Explanation, error)
	// Plan tells what would change if these were all the policy files. It changes nothing. The
	// error is netpolicy.Faults if the files have faults.
	Plan(ctx context.Context, sources []netpolicy.Source) (netpolicy.Delta, error)
}

// What a question about policies can fail by, on both sides of the socket.
var (
	// ErrUnknownParty says that a name is neither a container nor anything else
	// that can be one end of a connection. UnknownParty makes one.
	ErrUnknownParty = errors.New("no end of a connection")
	// ErrBadService says that PROTO/PORT cannot be read.
	ErrBadService = errors.New("no service")
	// ErrPolicyFaults says that policy files have faults, and lists them.
	ErrPolicyFaults = errors.New("policy files have faults")
)

var (
	errBadRequest = errors.New("the request cannot be read")
	errTooLarge   = errors.New("the request is too large")
	errNoPolicies = errors.New("this agent answers no questions about policies")
)

const (
	// MaxPlanFiles is how many files one plan may be about.
	MaxPlanFiles = 1000
	// maxPlan bounds what one plan can make the agent hold: some thousand
	// policies of the usual size.
	maxPlan = 8 << 20
	// planAnswerTimeout is longer than the agent's own limit, and leaves time for the requests
	// that come before this one.
	planAnswerTimeout = 90 * time.Second
)

// UnknownParty is ErrUnknownParty about a name, with what was probably meant by it.
func UnknownParty(name string, containers []string) error {
	text := fmt.Sprintf("%.64q is no container and no address, neither host nor external", name)
	if near := netpolicy.Nearest(name, append([]string{"host", "external"}, containers...)); near != "" {
		text += fmt.Sprintf(" (did you mean %q?)", near)
	}
	return &told{text + ": `netguard status` lists the containers there are", ErrUnknownParty}
}

// Policies makes the server answer questions about policies from p. Call it before Serve.
// Without it the server refuses such questions.
func (s *Server) Policies(p PolicySource) { s.policies = p }

// explain answers what the policies in force say of connections.
func (s *Server) explain(r *http.Request) (any, error) {
	if s.policies == nil {
		return nil, errNoPolicies
	}
	query := r.URL.Query()
	src, dst := query.Get("src"), query.Get("dst")
	if src == "" || dst == "" {
		return nil, fmt.Errorf("%w: it needs src and dst, and may have a service", errBadRequest)
	}
	ctx, done, err := begin(r, s.timeouts.source, s.reading)
	if err != nil {
		return nil, err
	}
	defer done()
	e, err := s.policies.Explain(ctx, src, dst, query.Get("service"))
	if err != nil {
		return nil, err
	}
	fill(&e.Answers)
	return e, nil
}

// planRequest is all policy files there would be.
type planRequest struct {
	Files []planFile `json:"files"`
}

type planFile struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// plan answers what would change with other policy files. No other request has a body that
// counts. So only one body at a time is in memory, and it must come soon.
func (s *Server) plan(at *http.ResponseController, r *http.Request) (any, error) {
	if s.policies == nil {
		return nil, errNoPolicies
	}
	ctx, done, err := begin(r, s.timeouts.plan, s.planning)
	if err != nil {
		return nil, err
	}
	defer done()
	at.SetReadDeadline(time.Now().Add(s.timeouts.header)) // the server's own may be over
	sources, err := readPlan(r.Body)
	if err != nil {
		return nil, err
	}
	d, err := s.policies.Plan(ctx, sources)
	if faults, ok := errors.AsType[netpolicy.Faults](err); ok {
		return nil, &told{faults.Error(), ErrPolicyFaults}
	}
	if err != nil {
		return nil, err
	}
	fill(&d.Endpoints)
	fill(&d.Connections)
	return d, nil
}

func readPlan(body io.Reader) ([]netpolicy.Source, error) {
	text, err := io.ReadAll(body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fmt.Errorf("%w: at most %d bytes of policies are planned", errTooLarge, tooLarge.Limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadRequest, err)
	}
	var request planRequest
	if err := json.Unmarshal(text, &request); err != nil {
		return nil, fmt.Errorf(`%w: %w: it is {"files": [{"name": "…", "text": "…"}]}`, errBadRequest, err)
	}
	if len(request.Files) > MaxPlanFiles {
		return nil, fmt.Errorf("%w: it has %d files, at most %d are planned", errTooLarge, len(request.Files), MaxPlanFiles)
	}
	sources := make([]netpolicy.Source, len(request.Files))
	for i, f := range request.Files {
		sources[i] = netpolicy.Source{Name: f.Name, Data: []byte(f.Text)}
	}
	return sources, nil
}

// Explain asks what the policies in force say of connections from src to dst; see
// PolicySource. The error is ErrUnreachable, ErrUnknownParty, ErrBadService, or
// what the agent says.
func (c *Client) Explain(ctx context.Context, src, dst, service string) (netpolicy.Explanation, error) {
	values := url.Values{"src": {src}, "dst": {dst}}
	if service != "" {
		values.Set("service", service)
	}
	query := values.Encode()
	for _, name := range []string{src, dst} {
		if name == "" || len(query) > maxQuery {
			return netpolicy.Explanation{}, UnknownParty(name, nil)
		}
	}
	var e netpolicy.Explanation
	if err := c.ask(ctx, http.MethodGet, "/v1/policy/explain", query, nil, &e); err != nil {
		return netpolicy.Explanation{}, err
	}
	fill(&e.Answers)
	return e, nil
}

// Plan asks what would change if these were all the policy files. The error is ErrUnreachable,
// ErrPolicyFaults, or what the agent says.
func (c *Client) Plan(ctx context.Context, sources []netpolicy.Source) (netpolicy.Delta, error) {
	request := planRequest{Files: make([]planFile, len(sources))}
	for i, s := range sources {
		if !utf8.Valid(s.Data) { // JSON would change it
			return netpolicy.Delta{}, fmt.Errorf("plan: %s is not UTF-8", s.Name)
		}
		request.Files[i] = planFile{s.Name, string(s.Data)}
	}
	body, err := json.Marshal(request)
	if err != nil {
		return netpolicy.Delta{}, fmt.Errorf("plan: %w", err)
	}
	if len(body) > maxPlan {
		return netpolicy.Delta{}, fmt.Errorf("plan: %d bytes of policies: at most %d are planned at once", len(body), maxPlan)
	}
	patient := *c
	patient.http.Timeout = max(patient.http.Timeout, planAnswerTimeout)
	var d netpolicy.Delta
	if err := patient.ask(ctx, http.MethodPost, "/v1/policy/plan", "", body, &d); err != nil {
		return netpolicy.Delta{}, err
	}
	fill(&d.Endpoints)
	fill(&d.Connections)
	return d, nil
}
