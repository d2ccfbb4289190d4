package integration

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	bpflink "github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// counters are what changes in listings without anybody changing anything.
var counters = regexp.MustCompile(`(?m)\[\d+:\d+\]|^# .*$|packets \d+ bytes \d+|(expires|timeout|used|ref|hold_timer|message_age_timer|forward_delay_timer|direct_packets_stat|hello_timer|gc_timer|tcn_timer|topology_change_timer) +-?[\d./]+[dhms\d]*|\b(REACHABLE|STALE|DELAY|PROBE)\b|(fdb_n_learned|fdb_max_learned) \d+| probes \d+| updated \d+| offload_\S+`)

// noted are members of sets that go by themselves after a while.
var noted = regexp.MustCompile(`(?m)^add ng[46]-(?:cut|began) .*\n`)

// bothBackends are those of iptables.
var bothBackends = []struct {
	name   string
	option []Option
}{{"nft", nil}, {"legacy", []Option{WithLegacyIptables()}}}

// kernel is everything on a host that netguard touches, as the tools list it.
func kernel(e *Engine) map[string]string {
	out := map[string]string{}
	for name, command := range map[string]string{
		"iptables":         "iptables-nft-save",
		"ip6tables":        "ip6tables-nft-save",
		"iptables-legacy":  "iptables-legacy-save",
		"ip6tables-legacy": "ip6tables-legacy-save",
		"ipset":            "ipset save",
		"nftables":         "nft list ruleset",
		"qdiscs":           "tc qdisc show",
		"classes, filters": queuesOf("$(ip -o link show | cut -d: -f2 | cut -d@ -f1 | sort)"),
		"links":            "ip -d link show | sed 's/ numtxqueues.*//'",
		"bridge ports":     "bridge -d link",
		"FDB":              "bridge fdb show | grep -E 'static|extern_learn|sticky|permanent' | grep -v ' self permanent' | sort",
		"neighbours":       "ip neigh show nud permanent; ip -6 neigh show nud permanent",
		"sysctls":          "sysctl -a 2>/dev/null | grep -E '^net\\.(bridge|ipv4\\.(conf|neigh|ip_forward)|ipv6\\.conf|netfilter\\.nf_conntrack_(max|tcp))' | sort",
	} {
		out[name] = counters.ReplaceAllString(noted.ReplaceAllString(unfilled(e.Output("sh", "-c", command)), ""), "")
	}
	out["programs"] = programs(e)
	return out
}

// programs counts the BPF programs at the ingress of each device that has any.
func programs(e *Engine) string {
	var b strings.Builder
	err := e.Do(func() error {
		devices, err := net.Interfaces()
		for _, d := range devices {
			r, err := bpflink.QueryPrograms(bpflink.QueryOptions{Target: d.Index, Attach: ebpf.AttachTCXIngress})
			if err == nil && len(r.Programs) > 0 {
				fmt.Fprintf(&b, "%s: %d\n", d.Name, len(r.Programs))
			}
		}
		return err
	})
	if err != nil {
		b.WriteString(err.Error())
	}
	return b.String()
}

// queuesOf is a command that lists all that queues packets on devices, or leads them there.
func queuesOf(devices string) string {
	return "for d in " + devices + "; do echo $d:; tc qdisc show dev $d; tc class show dev $d; for at in '' ingress egress; do tc filter show dev $d $at 2>/dev/null || :; done; done"
}

// strangers puts things of other people's next to netguard's, some of them on a veth that
// netguard limits nothing on.
func strangers(e *Engine, veth string) {
	for _, command := range []string{
		"iptables -I FORWARD 1 -s 203.0.113.7 -j DROP",
		"iptables -A DOCKER-USER -s 203.0.113.8 -j RETURN",
		"iptables -N MINE && iptables -A MINE -p tcp --dport 99 -j REJECT && iptables -A INPUT -j MINE",
		"ip6tables -A INPUT -s 2001:db8::7 -j DROP",
		"ipset create mine hash:ip && ipset add mine 203.0.113.9",
		"nft add table inet mine && nft add chain inet mine c '{ type filter hook input priority 5; }' && nft add rule inet mine c ip saddr 203.0.113.10 drop",
		"nft add table bridge mine && nft add chain bridge mine c '{ type filter hook forward priority 5; }'",
		"ip link add mine0 type bridge && ip link add mine1 type veth peer name mine2 && ip link set mine1 master mine0 && ip link set mine0 up && ip link set mine1 up && ip link set mine2 up",
		"tc qdisc add dev mine1 root handle 7: htb && tc qdisc add dev mine2 ingress",
		"tc class add dev mine1 parent 7: classid 7:1 htb rate 1mbit && tc filter add dev mine1 parent 7: protocol ip u32 match ip src 203.0.113.12 flowid 7:1",
		"for d in mine2 " + veth + "; do tc qdisc replace dev $d ingress && tc filter add dev $d ingress protocol ip u32 match ip src 203.0.113.13 flowid 1:1; done",
		"bridge fdb add 02:00:00:00:00:77 dev mine1 master static && ip neigh add 203.0.113.77 lladdr 02:00:00:00:00:77 dev mine0 nud permanent",
		// In the backend that Docker does not use as well.
		"for b in nft legacy; do iptables-$b -A OUTPUT -d 203.0.113.11 -j DROP && ip6tables-$b -A OUTPUT -d 2001:db8::11 -j DROP; done",
	} {
		e.Output("sh", "-c", command)
	}
}

// theirs is what belongs to strangers and to Docker, whatever netguard does.
func theirs(e *Engine, veth string) string {
	return counters.ReplaceAllString(e.Output("sh", "-c", `
		for s in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do $s | grep -v NG | grep -E -e '^-A|^:(MINE|DOCKER)|^\*'; done
		ipset save mine; nft list table inet mine; nft list table bridge mine
		`+queuesOf("mine0 mine1 mine2 docker0 "+veth)+`
		for d in mine0 mine1 mine2 docker0; do ip -d link show $d; bridge -d link show dev $d; done
		bridge fdb show dev mine1 | grep -v ^33:33:ff; ip neigh show dev mine0 nud permanent
		sysctl net.ipv4.ip_forward; sysctl -a 2>/dev/null | grep '^net\.bridge'`), "")
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	for _, backend := range bothBackends {
		t.Run(backend.name, func(t *testing.T) {
			e := Start(t, backend.option...)
			e.Network("net", Subnet("198.18.9.0/24"), Subnet("fd00:9::/64"))
			plain := e.Run("plain", On("net"), Doing("serve", "tcp", ":80"))
			veth := plain.Veth("net")
			strangers(e, veth)
			var containers []*Container
			for i := range 3 {
				containers = append(containers, e.Run(fmt.Sprintf("web%d", i), On("net"), Service("shop", "web"),
					Label(egressRate, "10mbit"), Label(ingressRate, "20mbit"), Label("netguard.guard.allow", "198.18.9.200"), Label("netguard.guard.connections", "1000")))
			}
			before, foreign := kernel(e), theirs(e, veth)
			if !strings.Contains(foreign, "match cb00710c/") || strings.Count(foreign, "match cb00710d/") < 2 || !strings.Contains(foreign, "class htb 7:1 ") {
				t.Fatalf("not all queues and filters of strangers:\n%s", foreign)
			}
			if n := len(strings.Split(foreign, "203.0.113.11/")); n != 3 {
				t.Fatalf("%d rules of strangers in both backends:\n%s", n-1, foreign)
			}
			a := e.NewAgent(Policy("web.yaml", "name: web\nselect: {service: web}\ningress: []\ndeny:\n  - egress: {to: [{cidr: 169.254.169.254/32}]}\n"))
			same := func(when string) {
				t.Helper()
				if d := cmp.Diff(before, kernel(e)); d != "" {
					t.Errorf("%s the kernel is not as before:\n%s", when, d)
				}
			}
			enforced := func() {
				t.Helper()
				a.AwaitStatus("all is in force", func(s control.Status) bool {
					for _, c := range containers {
						ep, _ := Endpoint(s, c, "net")
						if !Whole(ep) || len(ep.Policy.Ingress) == 0 || ep.Egress.RateBPS == 0 {
							return false
						}
					}
					free, _ := Endpoint(s, plain, "net")
					return s.InSync && free.State == control.Admitted
				})
				if cmp.Equal(before, kernel(e)) {
					t.Error("nothing is enforced")
				}
				if d := cmp.Diff(foreign, theirs(e, veth)); d != "" {
					t.Errorf("while netguard enforces, other people's things are not as before:\n%s", d)
				}
			}
			clean := func() {
				t.Helper()
				if r := a.CLI("cleanup"); !r.OK() || !strings.Contains(r.Stdout, "out of the kernel") {
					t.Errorf("cleanup: %s", r)
				}
			}
			a.Start()
			enforced()
			clean()
			if r := a.Process().Wait(); !r.OK() {
				t.Errorf("the agent that was told to clean up ended with %s", r)
			}
			same("cleaned up by the agent,")
			clean()
			same("cleaned up twice,")
			a.Start()
			enforced()
			a.Kill()
			clean()
			same("cleaned up after a crash,")
			clean()
			same("cleaned up twice after a crash,")
			a.Start()
			enforced()
			limited := containers[0].Veth("net")
			e.Output("tc", "filter", "add", "dev", limited, "ingress", "protocol", "ip", "u32", "match", "ip", "src", "203.0.113.14", "flowid", "1:1")
			clean()
			a.Process().Wait()
			containers[0].Inside().CanReach("tcp", plain.Addr("net", 80))
			if out := e.Output("tc", "filter", "show", "dev", limited, "ingress"); !strings.Contains(out, "match cb00710e/") || strings.Contains(out, "mirred") {
				t.Errorf("the filters at a veth that was limited are now:\n%s", out)
			}
			e.Output("tc", "qdisc", "del", "dev", limited, "ingress")
			same("cleaned up beside a foreign filter that is gone now,")
			a.Start()
			enforced()
			a.RestartWith("--mode", "monitor")
			enforced()
			a.Stop()
			clean()
			same("cleaned up after monitor mode, with no agent,")
		})
	}
}
