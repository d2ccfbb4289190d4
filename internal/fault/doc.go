// Package fault is what every write to the kernel passes, so that a test can have
// any of them fail, or the process end there. Without the build tag faultinject,
// which only tests give, a write is made and nothing else: the compiler leaves
// nothing of this package.
package fault
