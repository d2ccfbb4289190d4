package harness

import "encoding/json"

// Probe runs a verb of integration/probe in the namespace, to its end.
func (n Netns) Probe(verb string, args ...string) Result {
	n.tb.Helper()
	return n.Try(n.probe(), append([]string{verb}, args...)...)
}

// SpawnProbe starts a verb of integration/probe in the namespace.
func (n Netns) SpawnProbe(verb string, args ...string) *Process {
	n.tb.Helper()
	return n.Spawn(n.probe(), append([]string{verb}, args...)...)
}

func (n Netns) probe() string {
	n.tb.Helper()
	s, err := theSession()
	if err == nil {
		var path string
		if path, err = s.build("netguard/integration/probe"); err == nil {
			return path
		}
	}
	n.tb.Fatalf("%v", err)
	return ""
}

// Serve starts an echo server in the namespace ("tcp", ":80", "udp", ":53") and
// waits until it listens.
func (n Netns) Serve(args ...string) *Process {
	n.tb.Helper()
	p := n.SpawnProbe("serve", args...)
	p.AwaitLine("serving")
	return p
}

// Reach says how an attempt to reach an address went.
type Reach struct {
	// Result is answered, accepted (but not answered), refused, unreachable,
	// timeout or error.
	Result string  `json:"result"`
	Error  string  `json:"error"`
	TookMS float64 `json:"took_ms"`
}

// Answered tells whether the server's answer came back.
func (r Reach) Answered() bool { return r.Result == "answered" }

func (r Reach) String() string {
	raw, _ := json.Marshal(r)
	return string(raw)
}

// Connect tries once to reach an echo server; timeout is as Go writes durations.
func (n Netns) Connect(protocol, address, timeout string) Reach {
	n.tb.Helper()
	var r Reach
	result := n.Probe("connect", protocol, address, timeout)
	if err := result.Into(&r); err != nil {
		n.tb.Fatalf("%v", err)
	}
	return r
}

// CanReach ends the test unless the echo server answers.
func (n Netns) CanReach(protocol, address string) {
	n.tb.Helper()
	if r := n.Connect(protocol, address, "3s"); !r.Answered() {
		n.tb.Fatalf("%s %s should answer: %s", protocol, address, r)
	}
}

// CannotReach ends the test if the echo server answers. Make sure, by CanReach
// of somebody else, that it would.
func (n Netns) CannotReach(protocol, address string) {
	n.tb.Helper()
	if r := n.Connect(protocol, address, "700ms"); r.Answered() {
		n.tb.Fatalf("%s %s should not answer: %s", protocol, address, r)
	}
}
