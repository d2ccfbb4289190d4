package harness

import "netguard/agent/control"

// AllAdmitted is true of a status in which every endpoint that netguard manages
// is admitted, and there is one.
func AllAdmitted(s control.Status) bool {
	admitted := 0
	for _, e := range s.Endpoints {
		switch e.State {
		case control.Admitted:
			admitted++
		case control.Unmanaged:
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

// AwaitEndpoint waits until the container's endpoint on a network has a state,
// and returns it.
func (a *Agent) AwaitEndpoint(c *Container, networkName, state string) control.Endpoint {
	a.e.tb.Helper()
	s := a.AwaitStatus(c.Name+" on "+networkName+" is "+state, func(s control.Status) bool {
		e, ok := Endpoint(s, c, networkName)
		return ok && e.State == state
	})
	e, _ := Endpoint(s, c, networkName)
	return e
}
