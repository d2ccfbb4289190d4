package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	"netguard/agent/doctor"
	. "netguard/integration/harness"
)

// examine runs doctor in the engine's namespace, and checks its exit code.
func examine(t *testing.T, a *Agent) (doctor.Report, map[string]doctor.Check) {
	t.Helper()
	r := a.CLI("doctor", "--policy-dir", a.PolicyDir, "-o", "json")
	var report doctor.Report
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	if bad := report.Result == doctor.Fail; (r.Code == 1) != bad || r.Code > 1 || r.Stderr != "" {
		t.Errorf("doctor says %s and ends with %s", report.Result, r)
	}
	checks := map[string]doctor.Check{}
	for _, c := range report.Checks {
		checks[c.Name] = c
	}
	return report, checks
}

// touchable is what doctor could change, without what changes by itself.
func touchable(e *Engine) string {
	return e.Output("sh", "-c", `{ iptables-nft-save; ip6tables-nft-save; } | sed 's/ \[[0-9:]*\]$//; /^#/d'
		cat /proc/net/ip_tables_names; ipset list -n; nft -s list tables; nft -s list table bridge netguard 2>/dev/null | grep -v -e expires -e counter -e 'packets timeout' -e 'bytes timeout'
		tc qdisc show; ip -o link show | sed 's/ state .*//'; bridge -d link | sed 's/ state .*//'
		sysctl -a 2>/dev/null | grep -E '^net\.(bridge|ipv4\.(conf|ip_forward)|ipv6\.conf)'`)
}

// expect compares checks with results and a part of what was found.
func expect(t *testing.T, checks map[string]doctor.Check, want map[string]string) {
	t.Helper()
	for name, text := range want {
		result, found, _ := strings.Cut(text, " ")
		if c, ok := checks[name]; !ok || string(c.Result) != result || !strings.Contains(c.Found, found) {
			t.Errorf("%s is %+v instead of %s", name, c, text)
		}
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6(), Flags("--live-restore"))
	e.Network("net", Subnet("198.18.31.0/24"))
	c := e.Run("web", On("net"), Label(egressRate, "10mbit"), Service("shop", "web"))
	a := e.NewAgent(Policy("web.yaml", "name: web\nselect: {service: web}\ningress: []\n"))

	t.Run("without_an_agent", func(t *testing.T) {
		e, a := e.For(t), a.For(t)
		before := touchable(e)
		report, checks := examine(t, a)
		if d := cmp.Diff(before, touchable(e)); d != "" {
			t.Errorf("doctor changed the kernel:\n%s", d)
		}
		expect(t, checks, map[string]string{
			"host.capabilities": "ok", "host.kernel": "ok", "host.namespace": "ok 2 bridges",
			"shaper.limits": "ok", "guard.tier": "ok full", "policy.iptables": "ok which Docker uses", "policy.rules": "ok",
			"policy.sets": "ok", "policy.conntrack": "ok", "docker.engine": "ok", "docker.rootless": "ok", "docker.firewall": "ok iptables",
			"docker.ip6tables": "ok as well", "docker.userland_proxy": "ok on", "docker.live_restore": "ok on", "conflict.none": "ok",
			"agent.running": "warn nothing is enforced", "files.policies": "ok 1 policy in 1 file", "files.configuration": "ok",
		})
		if report.Result == doctor.Fail {
			t.Errorf("a host that is fine: %+v", report)
		}
	})
	a.Start()
	t.Run("with_an_agent", func(t *testing.T) {
		e, a := e.For(t), a.For(t)
		a.AwaitStatus("all is in force", func(s control.Status) bool {
			ep, _ := Endpoint(s, c, "net")
			return s.InSync && Whole(ep) && ep.Egress.RateBPS > 0
		})
		before := touchable(e)
		report, checks := examine(t, a)
		if d := cmp.Diff(before, touchable(e)); d != "" {
			t.Errorf("doctor changed the kernel:\n%s", d)
		}
		expect(t, checks, map[string]string{
			"shaper.limits": "ok", "guard.tier": "ok full", "conflict.none": "ok", "docker.firewall": "ok",
			"agent.running": "ok mode enforce, 1 endpoint", "agent.version": "ok", "agent.in_sync": "ok",
		})
		if report.Result != doctor.OK {
			t.Errorf("an agent that is fine: %+v", report)
		}
		if r := a.CLI("status", "-o", "wide"); !strings.Contains(r.Stdout, " | guard full | late checksums program\n") {
			t.Errorf("status does not name the tier: %s", r)
		}
	})
	t.Run("from_another_namespace", func(t *testing.T) {
		e, a := e.For(t), a.For(t)
		r := e.Try("unshare", "--net", a.Binary, "doctor", "--docker-host", e.Host(), "--socket", a.Socket, "-o", "json")
		if r.Code != 1 || !strings.Contains(r.Stdout, "another network namespace") {
			t.Errorf("%s", r)
		}
	})
	t.Run("after_a_crash", func(t *testing.T) {
		a := a.For(t)
		a.Kill()
		_, checks := examine(t, a)
		expect(t, checks, map[string]string{"agent.running": "fail nobody listens", "conflict.none": "ok"})
	})
}

func TestDoctorFindsConflicts(t *testing.T) {
	t.Parallel()
	e := Start(t, Flags("--iptables=false", "--userland-proxy=false"))
	e.Run("web", On("bridge"))
	veth := strings.TrimSpace(e.Output("sh", "-c", "ip -o link show master docker0 | sed 's/^[0-9]*: //; s/@.*//'"))
	for _, command := range []string{
		"tc qdisc add dev " + veth + " root handle 7: htb",
		"nft add table bridge mine && nft add chain bridge mine c '{ type filter hook forward priority 5; }' && nft add rule bridge mine c ether type 0x88b5 drop",
		"iptables -N ufw-before-input",
	} {
		e.Output("sh", "-c", command)
	}
	a := e.NewAgent(Config("limit: 3\n"), Policy("web.yaml", "name: web\nselect: {}\nform: 1\n"))
	_, checks := examine(t, a)
	expect(t, checks, map[string]string{
		"docker.firewall": "warn iptables=false", "host.namespace": "ok", "docker.live_restore": "ok off",
		"conflict.qdiscs": "warn htb on " + veth, "conflict.bridge_tables": "warn (mine)", "conflict.ufw": "ok chain ufw-before-input",
		"files.configuration": "fail netguard.yaml:1:1", "files.policies": "fail web.yaml:3:1",
	})
}

func TestDoctorFindsBothBackends(t *testing.T) {
	t.Parallel()
	e := Start(t, WithLegacyIptables(), Flags("--userland-proxy=false"))
	a := e.NewAgent()
	_, checks := examine(t, a)
	expect(t, checks, map[string]string{"policy.iptables": "ok legacy), which Docker uses", "policy.backends": "ok legacy only", "docker.firewall": "ok backend legacy", "docker.userland_proxy": "ok off"})
	e.Output("sh", "-c", "iptables-nft -A FORWARD -s 203.0.113.7 -j DROP")
	_, checks = examine(t, a)
	expect(t, checks, map[string]string{"policy.backends": "warn both"})
}
