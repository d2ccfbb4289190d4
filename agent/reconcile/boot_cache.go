package reconcile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/internal/smallfile"
)

// bootCache keeps Docker's networks in a file, because the kernel forgets everything at a boot.
// Docker starts containers before it answers the first request. Until it answers, only this
// file says which bridges are managed.
type bootCache struct {
	log  *slog.Logger
	path string // "" for none
	kept []byte // what this agent wrote last
	view docker.View
	// decided says that holds has its answer, closed, and does not change it any more.
	decided, closed bool
	reads           int
}

// maxCache bounds the file.
const maxCache = 1 << 20

// remembered is a network in the file.
type remembered struct {
	ID      string         `json:"id"`
	Name    string         `json:"name"`
	Bridge  string         `json:"bridge"`
	Subnets []netip.Prefix `json:"subnets"`
}

// BootCachePath is in the directory that systemd gives the service (StateDirectory=).
func BootCachePath() string {
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "networks.json")
}

// OpenBootCache reads the file. If there is no file, the cache is empty, which is no fault.
func OpenBootCache(path string, log *slog.Logger) *bootCache {
	m := &bootCache{log: log, path: path, view: docker.View{Networks: map[string]docker.Network{}}}
	if path == "" {
		m.decided = true
		return m
	}
	all, err := readCache(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	if err != nil {
		log.Warn("the networks of before cannot be read: until docker answers, containers that it starts are not held", "error", err)
		return m
	}
	for _, r := range all {
		m.view.Networks[r.ID] = docker.Network{ID: r.ID, Name: r.Name, Driver: "bridge", Bridge: r.Bridge, Subnets: r.Subnets}
	}
	return m
}

func readCache(path string) ([]remembered, error) {
	raw, err := smallfile.Read(path, maxCache)
	switch {
	case errors.Is(err, smallfile.ErrNotRegular):
		return nil, fmt.Errorf("%w: remove it", err)
	case err != nil:
		return nil, err
	case len(raw) > maxCache:
		return nil, fmt.Errorf("%s is longer than %d bytes: remove it", path, maxCache)
	}
	var all []remembered
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("%s: %w: remove it", path, err)
	}
	return all, nil
}

// keep writes the networks to the file, if they were read again and differ from what it wrote.
func (m *bootCache) keep(v docker.View, reads int) {
	if m.decided = true; m.path == "" || reads == m.reads {
		return
	}
	m.reads = reads
	all := []remembered{}
	for _, n := range v.Networks {
		if n.Driver == "bridge" && n.Bridge != "" {
			all = append(all, remembered{n.ID, n.Name, n.Bridge, n.Subnets})
		}
	}
	slices.SortFunc(all, func(a, b remembered) int { return strings.Compare(a.ID, b.ID) })
	text, err := json.Marshal(all)
	if err == nil && bytes.Equal(text, m.kept) {
		return
	}
	if err == nil {
		err = replace(m.path, text)
	}
	if err != nil {
		m.log.Warn("networks cannot be written down for the next boot", "error", err)
		return
	}
	m.kept = text
}

// replace writes a file as a whole or not at all, even if the host crashes meanwhile.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".networks-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone when it was renamed
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ForgetNetworks removes the file.
func ForgetNetworks(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget networks: %w", err)
	}
	return nil
}

// forgotten notes that the file was removed.
func (m *bootCache) forgotten() { m.kept, m.reads = nil, -1 }

// holds tells whether to close the ports of bridges that were managed before the boot. It does
// so only if no agent has guarded anything since the boot, and if these bridges have no port
// yet: what an earlier agent admitted must stay admitted.
func (m *bootCache) holds(ports []*link.Port, managed desired.Bridges, fresh func() (bool, error)) bool {
	if m.decided {
		return m.closed
	}
	for _, p := range ports {
		if _, ok := managed[p.MasterName]; ok {
			m.decided = true
			return false
		}
	}
	ok, err := fresh()
	if err != nil {
		m.log.Warn("the guard's table cannot be read: until docker answers, containers that it starts are not held", "error", err)
	}
	m.decided, m.closed = true, ok && len(m.view.Networks) > 0
	if m.closed {
		m.log.Info("docker does not answer yet: containers on the networks of before are held until it does", "networks", len(m.view.Networks))
	}
	return m.closed
}
