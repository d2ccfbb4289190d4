package reconcile

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/config"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

func TestBootCache(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	path := filepath.Join(t.TempDir(), "networks.json")
	net := docker.Network{ID: "1", Name: "net", Driver: "bridge", Bridge: "br-1", Subnets: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24")}}
	view := docker.View{Networks: map[string]docker.Network{"1": net, "2": {ID: "2", Name: "host", Driver: "host"}}}
	want := map[string]docker.Network{"1": net}
	fresh := func() (bool, error) { return true, nil }
	here := desired.Bridges{"br-1": guard.Bridge{Index: 3, Name: "br-1"}}
	port := []*link.Port{{Index: 4, MasterName: "br-1"}}

	t.Run("nothing_is_held_without_a_file", func(t *testing.T) {
		if OpenBootCache(path, log).holds(nil, nil, fresh) {
			t.Error("something is held")
		}
	})
	t.Run("keeps_bridges_and_recalls_them", func(t *testing.T) {
		OpenBootCache(path, log).keep(view, 1)
		m := OpenBootCache(path, log)
		if d := cmp.Diff(want, m.view.Networks, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Error(d)
		}
		if !m.holds(nil, nil, fresh) || !m.holds(port, here, fresh) {
			t.Error("after a boot they are not held")
		}
	})
	t.Run("holds_nothing_that_an_earlier_agent_admitted", func(t *testing.T) {
		if m := OpenBootCache(path, log); m.holds(port, here, fresh) || m.holds(nil, nil, fresh) {
			t.Error("a container that ran is held")
		}
		if OpenBootCache(path, log).holds(nil, nil, func() (bool, error) { return false, nil }) {
			t.Error("held though an earlier agent's table is there")
		}
		if OpenBootCache(path, log).holds(nil, nil, func() (bool, error) { return false, errors.New("no") }) {
			t.Error("held though it cannot be told")
		}
		m := OpenBootCache(path, log)
		m.keep(view, 1)
		if m.holds(nil, nil, fresh) {
			t.Error("held though docker has answered")
		}
	})
	t.Run("an_uplink_of_the_host_keeps_nobody_from_being_held", func(t *testing.T) {
		// As young as it is, and as old.
		for _, index := range []int{2, 9} {
			up := []*link.Port{{Index: index, Name: "up0", Master: 3, MasterName: "br-1"}}
			ground := desired.Site{View: link.View{Ports: up}, Own: desired.HostPorts(link.View{Ports: up}, config.Globs{"up9", "up0"})}
			if m := OpenBootCache(path, log); !m.holds(ground.Others(), here, fresh) {
				t.Error("nothing is held")
			}
		}
	})
	t.Run("writes_only_what_is_new", func(t *testing.T) {
		m := OpenBootCache(path, log)
		m.keep(view, 1)
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		m.keep(view, 2)
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("written again: %v", err)
		}
		m.keep(docker.View{}, 3)
		if got := OpenBootCache(path, log).view.Networks; len(got) > 0 {
			t.Errorf("it recalls %v", got)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
			t.Errorf("files %v, %v", left, err)
		}
	})
	t.Run("a_file_that_cannot_be_read_is_none", func(t *testing.T) {
		for _, text := range []string{"", "{", `[{"subnets": ["x"]}]`, string(make([]byte, maxCache+1))} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if OpenBootCache(path, log).holds(nil, nil, fresh) {
				t.Errorf("%.20q is held by", text)
			}
		}
	})
	t.Run("is_forgotten_with_everything_else", func(t *testing.T) {
		for range 2 {
			if err := ForgetNetworks(path); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Error(err)
		}
	})
}
