// Package remains knows what a test engine leaves on a machine, and removes it.
//
// It promises three things. Whatever an engine makes outside of its own process
// is written down before it is made ([Record.Write]). One and the same routine
// ([Record.Remove]) takes it away after a test that passed, failed or panicked,
// after a time-out, and after the owner was killed; so the routine for bad days
// runs every day. And nothing is touched that is not on record, so that engines
// of several runs, and the machine's own Docker, live beside each other.
//
// A record names its owner by process id and start time: a process id that was
// given to somebody else meanwhile does not keep the remains alive, and remains
// of a living owner are never swept.
package remains
