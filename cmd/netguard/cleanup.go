package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"netguard/agent"
	"netguard/agent/control"
)

const (
	// cleanupTimeout bounds it all: locks that others hold, and a big host.
	cleanupTimeout = 2 * time.Minute
	// endTimeout is how long an agent that no longer answers may take to end.
	endTimeout = 5 * time.Second
)

func newCleanup(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Take everything of netguard's out of the kernel",
		Long: `Take everything of netguard's out of the kernel: rules, sets, tables, qdiscs, IFBs,
settings of bridge ports, forwarding and neighbour entries. What others put there
stays as it is. Containers are unlimited and unguarded from then on.

An agent that runs does it itself, and ends. Doing it twice is doing it once.`,
		Example: `  netguard cleanup && systemctl disable netguard`,
		Args:    cobra.NoArgs,
		RunE: verb(func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), cleanupTimeout)
			defer cancel()
			err = control.NewClient(cfg.Socket).Cleanup(ctx)
			if errors.Is(err, control.ErrUnreachable) {
				err = afterAgent(ctx, endTimeout, func() error { return agent.Cleanup(ctx, cfg.Socket) })
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "everything of netguard's is out of the kernel")
			return err
		}),
	}
}

// afterAgent calls clean again while an agent that ends still has the locks.
func afterAgent(ctx context.Context, patience time.Duration, clean func() error) error {
	for enough := time.Now().Add(patience); ; {
		err := clean()
		if !errors.Is(err, control.ErrInUse) || time.Now().After(enough) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
