package harness

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"netguard/agent/control"
)

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
	if r.Code > 1 || r.Code < 0 { // 1: a container is not as declared
		return control.Status{}, fmt.Errorf("ask for status: %s", r)
	}
	var s control.Status
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		return control.Status{}, fmt.Errorf("decode status: %w: %s", err, r)
	}
	return s, nil
}

// AwaitStatus asks for the status until it is as wanted, and returns it. The failure's
// message names what was wanted. It asks the socket directly: a process for each question
// would cost more than the agent does.
func (a *Agent) AwaitStatus(what string, wanted func(control.Status) bool) control.Status {
	a.e.tb.Helper()
	ctx, cancel := a.e.ctx()
	defer cancel()
	client := control.NewClient(a.Socket)
	for {
		last, err := client.Status(ctx)
		if err == nil && wanted(last) {
			return last
		}
		// There is no event for a changed status.
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			text, _ := json.MarshalIndent(last, "", "  ")
			a.e.tb.Fatalf("wait until %s: %v\nerror: %v\nstatus: %s", what, ctx.Err(), err, text)
		}
	}
}

// Whole is true of an endpoint that is admitted, with all that it should have in
// the kernel.
func Whole(e control.Endpoint) bool { return e.State == control.Admitted && e.Missing == "" }

// AllAdmitted is true of a status in which every endpoint that netguard manages
// is whole, and there is one.
func AllAdmitted(s control.Status) bool {
	admitted := 0
	for _, e := range s.Endpoints {
		switch {
		case Whole(e):
			admitted++
		case e.State == control.Unmanaged:
		default:
			return false
		}
	}
	return admitted > 0
}

// Endpoint returns a container's endpoint on a network.
func Endpoint(s control.Status, c *Container, networkName string) (control.Endpoint, bool) {
	for _, e := range s.Endpoints {
		if e.ID == c.ID && e.Network == networkName {
			return e, true
		}
	}
	return control.Endpoint{}, false
}

// AwaitEndpoint waits until the container's endpoint on a network has a state, an
// admitted one all that it should have, and returns it.
func (a *Agent) AwaitEndpoint(c *Container, networkName, state string) control.Endpoint {
	a.e.tb.Helper()
	return a.awaitEndpoint(c, networkName, state, func(e control.Endpoint) bool {
		return e.State == state && (state != control.Admitted || Whole(e))
	})
}

// AwaitReason waits until a container is quarantined for a reason that contains the words. At
// first the reason may be that its port is not there yet.
func (a *Agent) AwaitReason(c *Container, networkName, words string) control.Endpoint {
	a.e.tb.Helper()
	return a.awaitEndpoint(c, networkName, "quarantined because of "+words, func(e control.Endpoint) bool {
		return e.State == control.Quarantined && strings.Contains(e.Reason, words)
	})
}

func (a *Agent) awaitEndpoint(c *Container, networkName, what string, is func(control.Endpoint) bool) control.Endpoint {
	a.e.tb.Helper()
	s := a.AwaitStatus(c.Name+" on "+networkName+" is "+what, func(s control.Status) bool {
		e, ok := Endpoint(s, c, networkName)
		return ok && is(e)
	})
	e, _ := Endpoint(s, c, networkName)
	return e
}
