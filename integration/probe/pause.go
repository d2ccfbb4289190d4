package main

import "context"

// pause does nothing until it is ended.
func pause(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	if err := a.done(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
