package reconcile

import "netguard/netpolicy/guard"

// What becomes of a container until all its rules are in the kernel.
const (
	AdmissionClosed = "closed" // it can neither send nor receive
	AdmissionOpen   = "open"   // it can
)

// admission says which of the two is in force while the kernel has these options, whether the
// agent runs or not.
func admission(o guard.Options) string {
	if o.Open || o.Mode == guard.Monitor {
		return AdmissionOpen
	}
	return AdmissionClosed
}

// Parting is what an agent that stops leaves behind.
func Parting(admission string) string {
	switch admission {
	case AdmissionOpen:
		return "what is enforced stays enforced; admission is open: containers that start from now on are not held back, and nothing is enforced for them until an agent runs again"
	case AdmissionClosed:
		return "what is enforced stays enforced; admission is closed: containers that start from now on can neither send nor receive until an agent runs again"
	}
	return "what an earlier agent enforced stays enforced; this one has changed nothing"
}
