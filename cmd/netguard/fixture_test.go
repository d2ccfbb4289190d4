package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with testdata/name.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func healthy() control.Status {
	return control.Status{
		Mode: "enforce", Admission: "closed", InSync: true, VerifiedAt: noon,
		Docker: control.Docker{Version: "28.5.2", Firewall: "iptables", Connected: true, ReadAt: time.Date(2026, 3, 1, 11, 59, 48, 0, time.UTC)},
		Shaper: control.Shaper{Leaf: "hashed", Missing: []string{"fq_codel", "sfq"}},
		Guard:  control.Guard{Tier: "full", Checksum: control.ByProgram},
		Endpoints: []control.Endpoint{
			{
				Container: "shop-web-1", Kind: control.KindContainer, ID: "f00dfeedf00dfeed", SharedBy: []string{"sidecar"}, Network: "front",
				Bridge: "br-1c9d2e3f4a5b", Veth: "veth1a2b3c4", MAC: "02:42:ac:12:00:02", IPv4: "172.18.0.2", IPv6: "fd00::2",
				State:   control.Admitted,
				Ingress: control.Traffic{RateBPS: 50_000_000, BurstBytes: 8192, Source: "netguard.ingress.rate", Bytes: 1_288_490_188, Packets: 912_345, Drops: 12},
				Egress:  control.Traffic{RateBPS: 1_500_000_000, BurstBytes: 187_500, Source: "default", Bytes: 104_857, Packets: 987},
				Denied:  3, Policy: control.Policies{Ingress: []string{"web", "base", "audit"}, Egress: []string{"base"}},
			},
			{
				Container: "shop-db-1", Kind: control.KindContainer, ID: "cafebabecafebabe", Network: "back", Bridge: "br-0011aabbccdd", Veth: "veth99aa88b",
				MAC: "02:42:ac:13:00:02", IPv4: "172.19.0.2", State: control.Admitted,
				Egress: control.Traffic{Bytes: 512, Packets: 4},
				Policy: control.Policies{Ingress: []string{"db"}},
			},
			{
				Container: "pihole", Kind: control.KindContainer, ID: "0123456789abcdef", Network: "lan", State: control.Unmanaged,
				Reason: "the network's driver is macvlan: netguard manages bridges",
			},
		},
	}
}

// sick has all that can be wrong, and strangers' texts.
func sick() control.Status {
	return control.Status{
		Mode: "enforce", Admission: "open", VerifiedAt: noon.Add(-26 * time.Hour),
		Docker: control.Docker{Version: "20.10.24", Firewall: "iptables"},
		Guard: control.Guard{Tier: "without locked ports", Checksum: control.ByFragments, ChecksumMissing: "types of the kernel: not found", Missing: []string{
			"bridge port setting locked (Linux 5.16): the filter alone keeps containers to their MACs",
			"nftables log to user space (CONFIG_NETFILTER_NETLINK_LOG): refused frames are counted, and nobody is told which addresses they forged"}},
		Findings: []string{"docker does not answer: what is enforced stays enforced, and new containers are not seen until it does; is dockerd running?", "/etc/netguard/policies/db.yaml:\n/etc/netguard/policies/db.yaml:3:5: unknown key \"form\": did you mean \"from\"?\n/etc/netguard/policies/db.yaml:9:1: duplicate name \"db\""},
		Endpoints: []control.Endpoint{
			{
				Container: "a-very-long-project-name-database-replica-12", ID: "aa", Network: "a-very-long-project-name_backend", State: control.Quarantined,
				Reason:  "it waits for its policy \"db\", which has a fault: see the host's findings",
				Ingress: control.Traffic{RateBPS: 1_234_567, Bytes: 1<<64 - 1, Packets: 1<<64 - 1}, Egress: control.Traffic{RateBPS: 100_000_000_000_000},
				Policy: control.Policies{Ingress: []string{"a-policy-with-a-long-name"}, Egress: []string{"another-one"}},
			},
			{
				Container: "bad-label", ID: "bb", Network: "bridge", State: control.Admitted,
				Findings: []string{`label netguard.egress.rate: rate "10" has no unit: write 10mbit (10 megabits a second), 10kbit, or 10MB/s (10 megabytes a second)`},
				Egress:   control.Traffic{RateBPS: 1000, Source: "fallback"},
			},
			{
				Container: "attacker", ID: "cc", Network: "bridge", State: control.Admitted,
				Violations: control.Violations{MAC: 1_234_567, ARP: 3}, Denied: 99_999,
			},
			{Container: "slow", ID: "dd", Network: "bridge", State: control.Admitted, Reason: "the kernel does not hold the limit now", Missing: "the kernel does not hold the limit now"},
			{
				Container: "evil\x1b[2J\r\u202egnp.exe\u009b1m", ID: "ee\x07", Network: "网络-\x00-backend", State: control.Unmanaged,
				Findings: []string{"label netguard.egress.rate has no effect: its network's driver is macvlan"},
				Reason:   "its label says \x1b]0;owned\x07 and this is long enough that it must be cut somewhere before the end of the line",
			},
			{
				Container: "evil-finding", ID: "ff", Network: "bridge\n! the host: all is well", State: control.Quarantined,
				Reason:   "\x1b[31mred\n\n! shop-web-1 (front): fake",
				Findings: []string{"tab\there and a word that is longer than a line: " + longWord},
			},
		},
	}
}

const longWord = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
