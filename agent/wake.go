package agent

// wake merges bursts: any number of calls before the reader looks are one.
type wake chan struct{}

func newWake() wake { return make(wake, 1) }

func (w wake) call() {
	select {
	case w <- struct{}{}:
	default:
	}
}
