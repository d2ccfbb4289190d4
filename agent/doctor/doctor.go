// Package doctor finds out what a host supports, what conflicts, and the remedy.
//
// It promises to change nothing. It tries things only in a network namespace of their own,
// which is gone afterwards, and reads everything else. (Kernel modules that a probe loaded stay
// loaded, as after an agent.) It works with or without an agent. It learns what is there from
// the kernel and the engine, never from the names of processes.
//
// Gather does all the reading. Judge, which is pure, makes checks of the facts.
package doctor

import "fmt"

// Result is what a check came to.
type Result string

const (
	OK   Result = "ok"
	Warn Result = "warn" // netguard works, not all of it or not as one might think
	Fail Result = "fail" // netguard cannot do what it is for
	Skip Result = "skip" // it could not be told; Found says why
)

// Check is one thing that was looked at.
type Check struct {
	// Name is area.subject, such as guard.ports. It is stable.
	Name   string `json:"name" yaml:"name"`
	Result Result `json:"result" yaml:"result"`
	Found  string `json:"found" yaml:"found"`
	// Remedy is what to do, "" where nothing is to be done.
	Remedy string `json:"remedy" yaml:"remedy"`
}

// Report is what `netguard doctor -o json` says: fields are added, never renamed or
// taken away.
type Report struct {
	Version string  `json:"version" yaml:"version"` // of the netguard that looked
	Result  Result  `json:"result" yaml:"result"`   // the worst of all checks: ok, warn or fail
	OK      int     `json:"ok" yaml:"ok"`           // how many checks are
	Warn    int     `json:"warn" yaml:"warn"`
	Fail    int     `json:"fail" yaml:"fail"`
	Skip    int     `json:"skip" yaml:"skip"`
	Checks  []Check `json:"checks" yaml:"checks"`
}

// Judge makes checks of facts. It is pure.
func Judge(f Facts) Report {
	c := &checks{}
	for _, about := range []func(*checks, Facts){
		aboutHost, aboutShaper, aboutGuard, aboutChecksum, aboutPolicy, aboutDocker, aboutConflicts, aboutAgent, aboutFiles,
	} {
		about(c, f)
	}
	r := Report{Version: f.Version, Result: OK, Checks: c.list}
	for _, check := range c.list {
		switch check.Result {
		case OK:
			r.OK++
		case Warn:
			r.Warn++
		case Fail:
			r.Fail++
		case Skip:
			r.Skip++
		}
	}
	switch {
	case r.Fail > 0:
		r.Result = Fail
	case r.Warn > 0:
		r.Result = Warn
	}
	return r
}

// checks gathers checks.
type checks struct{ list []Check }

func (c *checks) add(name string, result Result, remedy, found string, args ...any) {
	if len(args) > 0 {
		found = fmt.Sprintf(found, args...)
	}
	c.list = append(c.list, Check{Name: name, Result: result, Found: found, Remedy: remedy})
}

func (c *checks) ok(name, found string, args ...any)   { c.add(name, OK, "", found, args...) }
func (c *checks) skip(name, found string, args ...any) { c.add(name, Skip, "", found, args...) }

func (c *checks) warn(name, remedy, found string, args ...any) {
	c.add(name, Warn, remedy, found, args...)
}

func (c *checks) fail(name, remedy, found string, args ...any) {
	c.add(name, Fail, remedy, found, args...)
}
