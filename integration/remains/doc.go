// Package remains records what a test engine leaves on a machine, and removes it.
//
// It promises three things. First, everything that an engine makes outside its own
// process is recorded before it is made ([Record.Write]). Second, the same routine
// ([Record.Remove]) removes it after a test that passed, failed or panicked, after a
// time-out, and after the owner was killed. So the routine for failures is used in every
// run. Third, it touches only what is on record. So engines of several runs and the
// machine's own Docker can run side by side.
//
// A record names its owner by process id and start time. If the process id was reused,
// the owner counts as dead. The remains of a living owner are never swept.
package remains
