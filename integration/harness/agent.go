package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"netguard/agent/control"
)

// AgentOption changes how the agent is started.
type AgentOption func(*Agent)

// Config is the text of the agent's configuration file.
func Config(yaml string) AgentOption {
	return func(a *Agent) { a.config = yaml }
}

// Policy puts a file into the agent's policy directory.
func Policy(file, yaml string) AgentOption {
	return func(a *Agent) { a.policies[file] = yaml }
}

// AgentFlags passes flags to `netguard agent`.
func AgentFlags(flags ...string) AgentOption {
	return func(a *Agent) { a.flags = append(a.flags, flags...) }
}

// Agent is the netguard agent under test, on the engine's host.
type Agent struct {
	// Binary is the netguard that was built.
	Binary string
	// ConfigFile, PolicyDir and Socket are its paths.
	ConfigFile, PolicyDir, Socket string

	e        *Engine
	dir      string
	config   string
	policies map[string]string
	flags    []string
	process  *Process
}

// Agent builds netguard, starts its agent and waits until it says that it is
// ready.
func (e *Engine) Agent(options ...AgentOption) *Agent {
	e.tb.Helper()
	a := e.NewAgent(options...)
	a.Start()
	return a
}

// NewAgent is Agent without starting it.
func (e *Engine) NewAgent(options ...AgentOption) *Agent {
	e.tb.Helper()
	binary, err := e.session.build("netguard/cmd/netguard")
	if err != nil {
		e.tb.Fatalf("%v", err)
	}
	e.mu.Lock()
	e.agents++
	dir := e.path(fmt.Sprintf("agent%d", e.agents))
	e.mu.Unlock()
	a := &Agent{
		Binary:     binary,
		ConfigFile: filepath.Join(dir, "netguard.yaml"),
		PolicyDir:  filepath.Join(dir, "policies"),
		Socket:     filepath.Join(dir, "sock"),
		e:          e,
		dir:        dir,
		policies:   map[string]string{},
	}
	for _, o := range options {
		o(a)
	}
	e.must(os.MkdirAll(a.PolicyDir, 0o755), "create policy directory")
	a.WriteConfig(a.config)
	for file, yaml := range a.policies {
		a.WritePolicy(file, yaml)
	}
	e.tb.Cleanup(func() {
		if a.process != nil && e.tb.Failed() {
			e.tb.Logf("the agent's log, its last lines:\n%s", lastLines(a.process.Stderr(), 100))
		}
	})
	return a
}

// WriteConfig replaces the configuration file.
func (a *Agent) WriteConfig(yaml string) {
	a.e.tb.Helper()
	a.e.must(replaceFile(a.ConfigFile, yaml), "write configuration")
}

// WritePolicy writes a file of the policy directory.
func (a *Agent) WritePolicy(file, yaml string) {
	a.e.tb.Helper()
	a.e.must(replaceFile(filepath.Join(a.PolicyDir, file), yaml), "write policy")
}

// RemovePolicy removes a file of the policy directory.
func (a *Agent) RemovePolicy(file string) {
	a.e.tb.Helper()
	a.e.must(os.Remove(filepath.Join(a.PolicyDir, file)), "remove policy")
}

// replaceFile writes a file as a careful editor does: nobody sees half of it.
func replaceFile(path, text string) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func (a *Agent) arguments() []string {
	return []string{"--config", a.ConfigFile, "--docker-host", a.e.Host(), "--socket", a.Socket}
}

// Start starts the agent and waits until it is ready.
func (a *Agent) Start() {
	a.e.tb.Helper()
	ready := a.Launch()
	select {
	case <-ready:
	case <-a.process.Ended():
		a.e.tb.Fatalf("the agent ended before it was ready: %s", a.process.Wait())
	case <-time.After(patience):
		a.e.tb.Fatalf("the agent is not ready after %v; its log:\n%s", patience, a.process.Stderr())
	case <-a.e.tb.Context().Done():
		a.e.tb.Fatalf("start agent: %v", a.e.tb.Context().Err())
	}
}

// Launch starts the agent and returns a channel that is closed when it is ready.
func (a *Agent) Launch() <-chan struct{} {
	a.e.tb.Helper()
	if a.process != nil {
		select {
		case <-a.process.Ended():
		default:
			a.e.tb.Fatalf("start agent: it runs already")
		}
	}
	n, err := listenNotify(filepath.Join(a.dir, "ready"))
	if err != nil {
		a.e.tb.Fatalf("%v", err)
	}
	args := append([]string{"agent"}, a.arguments()...)
	args = append(append(args, "--policy-dir", a.PolicyDir, "--metrics", ""), a.flags...)
	cmd := a.e.Command(context.Background(), a.Binary, args...)
	cmd.Env = append(cmd.Env, n.env())
	cmd.SysProcAttr = ownSession()
	p, err := start(a.e.tb, cmd)
	a.e.must(err, "start agent")
	a.process = p
	go func() {
		<-p.Ended()
		n.close()
	}()
	return n.ready
}

// Process is the agent's process.
func (a *Agent) Process() *Process { return a.process }

// Log returns what the agent has logged since it was started last.
func (a *Agent) Log() string { return a.process.Stderr() }

// AwaitLog waits until the agent has logged a line with this text since it was
// started last, and returns the line.
func (a *Agent) AwaitLog(text string) string {
	a.e.tb.Helper()
	return a.process.AwaitLine(text)
}

// Stop ends the agent as systemd does (SIGTERM). It must exit with code 0.
func (a *Agent) Stop() {
	a.e.tb.Helper()
	if r := a.process.Stop(); !r.OK() {
		a.e.tb.Errorf("the agent should end well: %s", r)
	}
}

// Kill ends the agent at once (SIGKILL).
func (a *Agent) Kill() { a.process.Kill() }

// Restart stops the agent and starts it again.
func (a *Agent) Restart() {
	a.e.tb.Helper()
	a.Stop()
	a.Start()
}

// CLI runs `netguard` with these arguments against the agent.
func (a *Agent) CLI(args ...string) Result {
	a.e.tb.Helper()
	return a.e.Try(a.Binary, append(args, a.arguments()...)...)
}

// Status returns what `netguard status -o json` says.
func (a *Agent) Status() control.Status {
	a.e.tb.Helper()
	s, err := a.status()
	if err != nil {
		a.e.tb.Fatalf("%v", err)
	}
	return s
}

func (a *Agent) status() (control.Status, error) {
	a.e.tb.Helper()
	r := a.CLI("status", "-o", "json")
	if r.Code > 1 || r.Code < 0 { // 1: somebody is not as declared
		return control.Status{}, fmt.Errorf("ask for status: %s", r)
	}
	var s control.Status
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		return control.Status{}, fmt.Errorf("decode status: %w: %s", err, r)
	}
	return s, nil
}

// AwaitStatus asks for the status until it is as wanted, and returns it. What
// names the wish in the failure's message.
func (a *Agent) AwaitStatus(what string, wanted func(control.Status) bool) control.Status {
	a.e.tb.Helper()
	var last control.Status
	var err error
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		if last, err = a.status(); err == nil && wanted(last) {
			return last
		}
		// The control API has no stream of changes to wait for.
		select {
		case <-time.After(20 * time.Millisecond):
		case <-a.e.tb.Context().Done():
			a.e.tb.Fatalf("wait until %s: %v", what, a.e.tb.Context().Err())
		}
	}
	text, _ := json.MarshalIndent(last, "", "  ")
	a.e.tb.Fatalf("not true after %v: %s\nerror: %v\nstatus: %s", patience, what, err, text)
	return last
}

func lastLines(text string, lines int) string {
	all := bytes.Split([]byte(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// For returns the agent for a subtest, which it fails.
func (a *Agent) For(tb TB) *Agent {
	own := *a
	own.e = a.e.For(tb)
	return &own
}
