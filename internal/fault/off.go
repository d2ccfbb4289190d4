//go:build !faultinject

package fault

// Write makes a write. What is the name under which tests count it.
func Write(_ string, write func() error) error { return write() }

// Begin is Write for a write that goes on while something else is done.
func Begin(string) (made func(error) error, err error) {
	return func(err error) error { return err }, nil
}
