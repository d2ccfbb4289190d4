package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"netguard/agent/control"
	"netguard/agent/reconcile"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper/tc"
)

// clean removes all that is netguard's from the kernel, and the boot cache. After an error it
// goes on with the rest. It can be called again. The error is untouchedError if it must not
// begin.
func clean(ctx context.Context, filter *iptables.Driver, watcher *guard.Driver, shaper *tc.Driver) error {
	if err := untouchable(ctx, filter, watcher); err != nil {
		return untouchedError{err}
	}
	return errors.Join(filter.Cleanup(ctx), shaper.Cleanup(), watcher.Cleanup(), reconcile.ForgetNetworks(reconcile.BootCachePath()))
}

// untouchedError says why a clean-up did not begin: a newer netguard wrote what is in the
// kernel, or the agent cannot read it.
type untouchedError struct{ error }

func (e untouchedError) Unwrap() error { return e.error }

// untouchable says why this netguard must not change what is in the kernel: a newer one wrote
// it, or it cannot be read.
func untouchable(ctx context.Context, filter *iptables.Driver, watcher *guard.Driver) error {
	return errors.Join(filter.Check(ctx), watcher.Check())
}

// Cleanup takes everything of netguard's out of the kernel of this network
// namespace, where no agent runs. The error is control.ErrInUse if one does.
func Cleanup(ctx context.Context, socket string) error {
	if err := privileged(); err != nil {
		return err
	}
	// The lock keeps an agent from starting meanwhile.
	server := control.NewServer(socket, nil, "", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err := server.Listen(); err != nil {
		return err
	}
	defer server.Close()
	only, err := lockOwner(slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("%w, or name its socket (--socket)", err)
	}
	defer only.Close()
	filter, err := iptables.Open(ctx, iptables.Options{})
	if err != nil {
		return err
	}
	defer filter.Close()
	features, err := guard.Probe()
	if err != nil {
		return err
	}
	watcher, err := guard.Open(features, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer watcher.Close()
	shaper, err := tc.Open()
	if err != nil {
		return err
	}
	defer shaper.Close()
	return clean(ctx, filter, watcher, shaper)
}

// cleaner makes the running agent clean up and end. It implements control.Cleaner.
type cleaner struct {
	loop interface {
		Ask(ctx context.Context, f func()) error
		Stop()
		Anew()
	}
	clean   func(context.Context) error
	log     *slog.Logger
	end     context.CancelCauseFunc
	cleaned atomic.Bool // a clean-up succeeded
}

// errCleaned is why an agent ends after a clean-up.
var errCleaned = errors.New("everything of netguard's was taken out of the kernel")

// Cleanup implements control.Cleaner.
func (c *cleaner) Cleanup(ctx context.Context) error {
	var err error
	asked := c.loop.Ask(ctx, func() { err = c.cleanup(ctx) })
	switch {
	case asked != nil && c.cleaned.Load():
		return nil // somebody else asked first, and the loop has ended
	case asked != nil:
		return fmt.Errorf("ask the agent's loop: %w", asked)
	case err == nil:
		c.end(errCleaned)
	}
	return err
}

// cleanup removes everything from the kernel. After that the loop writes nothing more.
//
// If the clean-up fails half-way, the agent goes on and puts back what is gone. The other
// choice is to leave the rest as it is. Then the host would enforce only a part until somebody
// looks, with an agent that repairs nothing and lets containers in. The error tells the
// operator to mend the cause and to ask again. They can also stop the agent first.
func (c *cleaner) cleanup(ctx context.Context) error {
	err := c.clean(ctx)
	switch {
	case err == nil:
		c.loop.Stop()
		c.cleaned.Store(true)
	case !errors.As(err, new(untouchedError)):
		c.log.Error("clean-up failed half-way; putting back what was taken out", "error", err)
		c.loop.Anew()
		return fmt.Errorf("clean-up failed half-way, so the agent puts back what was taken out: mend this and run netguard cleanup again: %w", err)
	}
	return err
}
