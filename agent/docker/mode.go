package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/system"
)

// info asks the engine about itself.
func (c *caller) info(ctx context.Context) (system.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	i, err := c.Info(ctx)
	if err != nil {
		return i, fmt.Errorf("read engine info: %w", err)
	}
	return i, nil
}

// Mode is how an engine was started.
type Mode struct{ Rootless, LiveRestore bool }

// Mode asks the engine how it was started.
func (e *Engine) Mode(ctx context.Context) (Mode, error) {
	c, err := e.connected(ctx)
	if err != nil {
		return Mode{}, err
	}
	i, err := c.info(ctx)
	m := Mode{LiveRestore: i.LiveRestoreEnabled}
	for _, o := range i.SecurityOptions {
		for part := range strings.SplitSeq(o, ",") {
			m.Rootless = m.Rootless || part == "name=rootless" || part == "rootless"
		}
	}
	return m, err
}
