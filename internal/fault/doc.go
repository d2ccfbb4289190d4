// Package fault wraps every write to the kernel, so that a test can make any of them fail, or
// kill the process there. Only tests give the build tag faultinject. Without it a write is made
// and nothing else happens: the compiler leaves nothing of this package.
package fault
