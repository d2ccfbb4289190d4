package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
)

const defaultHost = "unix:///var/run/docker.sock"

// readDocker asks the engine.
func readDocker(ctx context.Context, cfg config.Config) Docker {
	d := Docker{Host: cfg.DockerHost}
	if d.Host == "" {
		d.Host = defaultHost
	}
	engine, err := docker.New(d.Host, slog.New(slog.DiscardHandler))
	if err != nil {
		d.Err = err.Error()
		return d
	}
	defer func() { _ = engine.Close() }() // nothing is lost with it
	view, err := engine.Refresh(ctx, docker.Hint{Full: true})
	if err != nil {
		d.Err = err.Error()
		if errors.Is(err, fs.ErrPermission) {
			d.Err = fmt.Sprintf("the engine's socket at %s is not open to this user", d.Host)
		}
		return d
	}
	d.view = view
	d.Version, d.Firewall = view.Version, view.Firewall
	operator := endpoint.Operator{Exclude: cfg.Exclude, AllowOptOut: cfg.AllowOptOut}
	for _, n := range view.Networks {
		if n.Bridge != "" && n.Scope == "local" {
			d.Networks = append(d.Networks, Network{Name: n.Name, Bridge: n.Bridge, Managed: operator.Manages(n), IPv6: n.IPv6, Endpoints: len(n.Endpoints)})
		}
	}
	slices.SortFunc(d.Networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	if d.Mode, err = engine.Mode(ctx); err != nil {
		d.InfoErr = fmt.Sprintf("the engine does not tell: %v", err)
	}
	return d
}
