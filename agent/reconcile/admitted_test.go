package reconcile

import (
	"testing"
	"time"
)

// refuse makes steps fail.
func (w *world) refuse(steps ...string) {
	w.fails = func(at string, _ int) error {
		for _, step := range steps {
			if at == step {
				return errInjected
			}
		}
		return nil
	}
}

// TestAdmittedByRetry: a port that the guard opens when it tries again stays open when later rules
// cannot be written.
func TestAdmittedByRetry(t *testing.T) {
	w := newWorld(t)
	w.come("front", service(0))
	w.policies(1)
	w.run(12 * time.Second) // no pass follows because of its age
	w.docker.slow = 50 * time.Millisecond
	c := w.come("front", service(2))
	w.run(20 * time.Millisecond) // the guard knows the port
	w.refuse("guard commit")
	w.run(50 * time.Millisecond)
	if w.fails, w.docker.slow = nil, 0; w.guard.Sends(c.port.Index) {
		t.Fatal("it sends, though nothing was written")
	}
	for tries := 0; !w.guard.Sends(c.port.Index); tries++ {
		if w.run(50 * time.Millisecond); tries > 100 {
			t.Fatal("the guard does not try again")
		}
	}
	w.refuse("rules write")
	w.policies(2)
	if w.run(5 * time.Second); !w.guard.Sends(c.port.Index) {
		t.Error("it was admitted, and is cut off because new rules cannot be written")
	}
	w.settle(90 * time.Second)
	w.check()
}
