package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
)

const (
	infoTimeout = 10 * time.Second
	maxInfo     = 4 << 20
	defaultHost = "unix:///var/run/docker.sock"
)

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
	if err := d.info(ctx); err != nil {
		d.InfoErr = fmt.Sprintf("the engine does not tell: %v", err)
	}
	return d
}

// info asks what a docker.View has not. It is one plain question, which every
// version of the API answers alike.
func (d *Docker) info(ctx context.Context) error {
	at, err := url.Parse(d.Host)
	if err != nil {
		return err
	}
	network, address := "unix", at.Path
	switch at.Scheme {
	case "unix":
	case "tcp", "http":
		network, address = "tcp", at.Host
	default:
		return fmt.Errorf("doctor does not ask it over %s", at.Scheme)
	}
	client := http.Client{Timeout: infoTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/info", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	var info struct {
		LiveRestoreEnabled bool
		SecurityOptions    []string
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxInfo)).Decode(&info); err != nil {
		return err
	}
	d.LiveRestore = info.LiveRestoreEnabled
	for _, o := range info.SecurityOptions {
		for part := range strings.SplitSeq(o, ",") {
			d.Rootless = d.Rootless || part == "name=rootless" || part == "rootless"
		}
	}
	return nil
}
