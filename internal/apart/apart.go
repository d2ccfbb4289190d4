// Package apart runs code in a new network namespace, so that what the code tries leaves
// nothing behind.
package apart

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNoNamespace says that no network namespace can be made.
var ErrNoNamespace = errors.New("no network namespace can be made to try it in, which takes CAP_SYS_ADMIN")

// Run runs f in a new network namespace, and gives f's error. The namespace ends with f, and
// all that f left in it. The error is ErrNoNamespace where f did not run.
func Run(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The kernel shows the namespace of the first thread as that of the process.
			// While this goroutine keeps the first thread, Run gets another one.
			err = Run(f)
			runtime.UnlockOSThread()
			return
		}
		if e := unix.Unshare(unix.CLONE_NEWNET); e != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("%w (%w)", ErrNoNamespace, e)
			return
		}
		// The goroutine keeps its thread, so the thread ends with it.
		err = f()
	}()
	<-done
	return err
}
