package pace

// Wakeup wakes one reader. All calls before the reader wakes count as one.
type Wakeup chan struct{}

// NewWakeup makes one that was not called yet.
func NewWakeup() Wakeup { return make(Wakeup, 1) }

// Call wakes the reader. It never blocks.
func (w Wakeup) Call() {
	select {
	case w <- struct{}{}:
	default:
	}
}
