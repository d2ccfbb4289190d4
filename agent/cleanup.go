package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"netguard/agent/control"
	"netguard/agent/reconcile"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper/tc"
)

// clean takes everything of netguard's out of the kernel, and what is written down
// for the next boot. It goes on after an
// error, and can be called again.
func clean(ctx context.Context, filter *iptables.Driver, watcher *guard.Driver, shaper *tc.Driver) error {
	if err := untouchable(ctx, filter, watcher); err != nil {
		return untouchedError{err}
	}
	return errors.Join(filter.Cleanup(ctx), shaper.Cleanup(), watcher.Cleanup(), reconcile.ForgetNetworks(reconcile.BootCachePath()))
}

// untouchedError is why a clean-up did not begin: all of it is a newer netguard's
// business, or cannot be read.
type untouchedError struct{ error }

func (e untouchedError) Unwrap() error { return e.error }

// untouchable says why what is in the kernel is not this netguard's to change: a newer
// one wrote it.
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

// cleaner has the running agent clean up, and end. It implements control.Cleaner.
type cleaner struct {
	loop  *reconcile.Loop
	clean func(context.Context) error
	log   *slog.Logger
	end   context.CancelCauseFunc
}

// errCleaned is why an agent ends that was told to clean up.
var errCleaned = errors.New("everything of netguard's was taken out of the kernel")

// Cleanup implements control.Cleaner.
func (c *cleaner) Cleanup(ctx context.Context) error {
	var err error
	asked := c.loop.Ask(ctx, func() { err = c.cleanup(ctx) })
	if asked != nil {
		return fmt.Errorf("ask the agent's loop: %w", asked)
	}
	if err == nil {
		c.end(errCleaned)
	}
	return err
}

// cleanup takes everything out of the kernel. Nothing is put back after that.
//
// When it fails half-way the agent goes on, and puts back what is gone. The other
// choice, to leave the rest as it is, would be a host on which some is enforced and
// some is not, for as long as nobody looks, with an agent that repairs nothing and
// lets containers in. Whoever wants it all out is told so, and can ask again, or stop the
// agent first.
func (c *cleaner) cleanup(ctx context.Context) error {
	err := c.clean(ctx)
	switch {
	case err == nil:
		c.loop.Stop()
	case !errors.As(err, new(untouchedError)):
		c.log.Error("clean-up failed half-way; putting back what was taken out", "error", err)
		c.loop.Anew()
		return fmt.Errorf("clean-up failed half-way, so the agent puts back what was taken out: mend this and run netguard cleanup again: %w", err)
	}
	return err
}
