package doctor

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"netguard/agent/config"
	"netguard/internal/apart"
	"netguard/internal/asroot"
)

// inNetns runs a test's part in a network namespace of its own. It must not end the
// test from there.
func inNetns(t *testing.T, part func() error) {
	t.Helper()
	asroot.Only(t)
	if err := apart.Run(part); err != nil {
		t.Error(err)
	}
}

func sh(t *testing.T, commands ...string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", strings.Join(commands, "\n")).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", commands, err, out)
	}
	return string(out)
}

// listing is what doctor could have changed.
func listing(t *testing.T) string {
	return sh(t, "ip -d link show", "ip addr show", "tc qdisc show", "tc filter show dev lo", "nft list ruleset",
		"{ iptables-nft-save; ip6tables-nft-save; } | grep -v ^#", "cat /proc/net/ip_tables_names", "ipset list", "bridge link",
		"sysctl -a 2>/dev/null | grep -E '^net.(bridge|ipv4.ip_forward|ipv4.conf|ipv6.conf)'")
}

func TestRealHost(t *testing.T) {
	inNetns(t, func() error {
		cfg := config.Default()
		cfg.Socket, cfg.DockerHost = t.TempDir()+"/none.sock", "unix://"+t.TempDir()+"/none.sock"
		sh(t,
			"ip link add br-1 type bridge", "ip link add veth1 type veth peer name veth2", "ip link add veth3 type veth peer name veth4",
			"ip link set veth1 master br-1", "ip link set veth3 master br-1",
			"tc qdisc add dev veth1 root handle 7: htb", "tc qdisc add dev veth3 clsact",
			"ip link add virbr0 type bridge",
			"iptables-nft -N DOCKER-USER", "iptables-nft -A DOCKER-USER -s 192.0.2.1 -j ACCEPT", "iptables-nft -N ufw-user-forward", "iptables-nft -A DOCKER-USER -j ufw-user-forward",
			"ip6tables-nft -N cali-FORWARD",
			"nft add table inet firewalld", "nft 'add chain inet firewalld filter_FORWARD'",
			"nft add table bridge mine", "nft 'add chain bridge mine c { type filter hook forward priority 5; }'", "nft add rule bridge mine c drop",
			"nft add table bridge idle", "nft 'add chain bridge idle c { type filter hook forward priority 6; }'",
		)
		before := listing(t)
		f, err := Gather(t.Context(), "v1", cfg)
		if err != nil {
			return err
		}
		if d := cmp.Diff(before, listing(t)); d != "" {
			t.Errorf("doctor changed something:\n%s", d)
		}
		f.Links = readLinks(t.Context(), Docker{Networks: []Network{{Name: "shop", Bridge: "br-1", Managed: true}}}, nil)
		got := map[string]Check{}
		for _, c := range Judge(f).Checks {
			got[c.Name] = c
		}
		for name, want := range map[string]struct {
			result Result
			found  string
		}{
			"host.capabilities":      {OK, "CAP_NET_ADMIN"},
			"host.kernel":            {OK, "Linux "},
			"policy.iptables":        {OK, "which Docker uses"},
			"policy.rules":           {OK, "read back"},
			"policy.sets":            {OK, "hash:net"},
			"policy.backends":        {OK, "nf_tables only"},
			"policy.conntrack":       {OK, "connections"},
			"docker.engine":          {Fail, "cannot be reached"},
			"agent.running":          {Warn, "nothing is enforced"},
			"conflict.firewalld":     {Warn, "table inet firewalld"},
			"conflict.calico":        {Warn, "chain cali-FORWARD"},
			"conflict.libvirt":       {OK, "virbr0"},
			"conflict.docker_user":   {Warn, "icc=false"},
			"conflict.ufw_reload":    {Warn, "empties"},
			"conflict.bridge_tables": {Warn, "(mine)"},
			"conflict.qdiscs":        {Warn, "htb on veth1 (br-1): what the container receives cannot be limited, ingress or clsact on veth3"},
		} {
			if c := got[name]; c.Result != want.result || !strings.Contains(c.Found, want.found) {
				t.Errorf("%s is %+v instead of %s %q", name, c, want.result, want.found)
			}
		}
		for _, name := range []string{"shaper.limits", "guard.tier"} { // as this kernel is
			if c := got[name]; c.Result == Skip || c.Result == "" {
				t.Errorf("%s was not tried: %+v", name, c)
			}
		}
		return nil
	})
}

// TestBothBackends has rules of both; legacy's are only looked at where its tables
// are there.
func TestBothBackends(t *testing.T) {
	inNetns(t, func() error {
		t.Setenv("XTABLES_LOCKFILE", t.TempDir()+"/lock")
		sh(t, "iptables-nft -A FORWARD -s 192.0.2.1 -j DROP")
		for range 2 {
			if r := Judge(Facts{Firewall: readFirewall(t.Context())}); !strings.Contains(text(r, "policy.backends"), "nf_tables only") {
				t.Errorf("with rules of one: %+v", r)
			}
			if names := sh(t, "cat /proc/thread-self/net/ip_tables_names"); names != "" {
				t.Errorf("to look made tables: %s", names)
			}
		}
		sh(t, "iptables-legacy -N DOCKER-USER", "iptables-legacy -A FORWARD -j DOCKER-USER")
		r := Judge(Facts{Firewall: readFirewall(t.Context())})
		if !strings.Contains(text(r, "policy.backends"), "both backends") || !strings.Contains(text(r, "policy.iptables"), "other backend, legacy") {
			t.Errorf("with rules of both: %+v", r)
		}
		return nil
	})
}

func text(r Report, name string) string {
	for _, c := range r.Checks {
		if c.Name == name {
			return c.Found
		}
	}
	return ""
}

// TestApart has nothing of what was tried where it was tried from.
func TestApart(t *testing.T) {
	namespace := func() string {
		var s unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &s); err != nil {
			t.Error(err)
		}
		return fmt.Sprint(s.Ino)
	}
	here, there := namespace(), ""
	inNetns(t, func() error { there = namespace(); return nil })
	if there == here || namespace() != here {
		t.Error("it was not tried apart")
	}
}

// TestWithoutPrivileges has nothing told of rules that were not seen.
func TestWithoutPrivileges(t *testing.T) {
	inNetns(t, func() error {
		sh(t, "iptables-nft -N DOCKER-USER", "iptables-nft -A DOCKER-USER -s 192.0.2.1 -j ACCEPT")
		// Of this thread only, which ends with this part.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := errors.Join(unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_ADMIN, 0, 0, 0), unix.Capset(&header, &none[0])); err != nil {
			return err
		}
		f := Facts{Firewall: readFirewall(t.Context()), Host: readHost(), Docker: Docker{Version: "28.0.0", Firewall: "iptables"}}
		r := Judge(f)
		for name, want := range map[string]Result{"host.capabilities": Fail, "policy.iptables": Fail, "policy.backends": Skip, "docker.firewall": Skip, "conflict.unknown": Skip} {
			i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
			if i < 0 || r.Checks[i].Result != want {
				t.Errorf("%s is not %s in %+v", name, want, r.Checks)
			}
		}
		return nil
	})
}
