package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// Through starts the agent by another program, such as setpriv.
func Through(command ...string) AgentOption {
	return func(a *Agent) { a.through = command }
}

// Agent is the netguard agent under test, on the engine's host.
type Agent struct {
	// Binary is the netguard that was built.
	Binary string
	// Env are variables of the agent's environment at its next start.
	Env []string
	// ConfigFile, PolicyDir and Socket are its paths.
	ConfigFile, PolicyDir, Socket string

	e *Engine
	*agent
}

// agent is what all handles of one agent share.
type agent struct {
	dir      string
	config   string
	policies map[string]string
	flags    []string
	through  []string
	runs     []*process // the last one is the running one
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
		agent:      &agent{dir: dir, policies: map[string]string{}},
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
		if !e.tb.Failed() {
			return
		}
		for i, run := range a.runs {
			e.tb.Logf("run %d of %d of the agent, the last lines of its log:\n%s", i+1, len(a.runs), lastLines(run.Stderr(), 60))
		}
	})
	return a
}

// For returns the same agent for a subtest.
func (a *Agent) For(tb TB) *Agent {
	scoped := *a
	scoped.e = a.e.For(tb)
	return &scoped
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

// replaceFile writes a file as a careful editor does: no reader sees half of it.
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
	ctx, cancel := a.e.ctx()
	defer cancel()
	select {
	case <-ready:
	case <-a.Process().Ended():
		a.e.tb.Fatalf("the agent ended before it was ready: %s", a.Process().Wait())
	case <-ctx.Done():
		a.e.tb.Fatalf("the agent is not ready: %v; its log:\n%s", ctx.Err(), a.Log())
	}
}

// Launch starts the agent and returns a channel that is closed when it is ready.
func (a *Agent) Launch() <-chan struct{} {
	a.e.tb.Helper()
	if len(a.runs) > 0 {
		select {
		case <-a.Process().Ended():
		default:
			a.e.tb.Fatalf("start agent: it runs already")
		}
	}
	// A path of its own: the socket of the run before is removed after that
	// run has ended, which may be now.
	n, err := listenNotify(filepath.Join(a.dir, fmt.Sprintf("ready%d", len(a.runs))))
	if err != nil {
		a.e.tb.Fatalf("%v", err)
	}
	args := append([]string{"agent"}, a.arguments()...)
	args = append(append(args, "--policy-dir", a.PolicyDir, "--metrics", ""), a.flags...)
	line := append(append(slices.Clone(a.through), a.Binary), args...)
	cmd := a.e.Command(context.Background(), line[0], line[1:]...)
	cmd.Env = append(append(cmd.Env, a.Env...), n.env())
	cmd.SysProcAttr = ownSession()
	p, err := start(a.e.tb, cmd)
	a.e.must(err, "start agent")
	a.runs = append(a.runs, p.process)
	go func() {
		<-p.Ended()
		n.close()
	}()
	return n.ready
}

// Process is the agent's process, of its last start.
func (a *Agent) Process() *Process {
	a.e.tb.Helper()
	if len(a.runs) == 0 {
		a.e.tb.Fatalf("the agent was not started")
	}
	return &Process{tb: a.e.tb, process: a.runs[len(a.runs)-1]}
}

// Log returns what the agent has logged since it was started last.
func (a *Agent) Log() string { return a.Process().Stderr() }

// AwaitLog waits until the agent has logged a line with this text since it was
// started last, and returns the line.
func (a *Agent) AwaitLog(text string) string {
	a.e.tb.Helper()
	return a.Process().AwaitLine(text)
}

// Stop ends the agent as systemd does (SIGTERM). It must exit with code 0.
func (a *Agent) Stop() {
	a.e.tb.Helper()
	if r := a.Process().Stop(); !r.OK() {
		a.e.tb.Errorf("the agent should end well: %s", r)
	}
}

// Kill ends the agent at once (SIGKILL).
func (a *Agent) Kill() { a.Process().Kill() }

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

func lastLines(text string, lines int) string {
	all := bytes.Split([]byte(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// RestartWith is Restart with other flags than AgentFlags gave.
func (a *Agent) RestartWith(flags ...string) {
	a.e.tb.Helper()
	a.flags = flags
	a.Restart()
}
