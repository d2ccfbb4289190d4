package doctor

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

// healthy is a host with an agent where nothing is to be done.
func healthy() Facts {
	rules := map[string]iptables.Table{
		"filter": {"FORWARD": {"-j DOCKER-USER", "-j DOCKER-FORWARD"}, "DOCKER-USER": {"-j NG-FORWARD"}, "DOCKER": nil, "NG-FORWARD": {"-j RETURN"}},
		"nat":    {"OUTPUT": {"! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"}, "DOCKER": nil},
	}
	return Facts{
		Version: "v1.2.0",
		Host: Host{Caps: 1<<12 | 1<<13 | 1<<21, Kernel: "6.12.4-amd64", BridgeFilter: []string{"0", "0"},
			Connections: 120, MaxConnections: 262144},
		Shaper: Shaper{Leaf: "fq_codel"},
		Guard:  Guard{Features: guard.Features{Locked: true, Sticky: true, Filter: true, Prefixes: true, Limits: true, BridgeNames: true, Checksum: true}},
		Docker: Docker{Host: "unix:///var/run/docker.sock", Version: "28.5.2", Firewall: "iptables", Mode: docker.Mode{LiveRestore: true},
			Networks: []Network{{Name: "bridge", Bridge: "docker0", Managed: true}, {Name: "shop", Bridge: "br-1", Managed: true, IPv6: true, Endpoints: 1}}},
		Firewall: Firewall{
			Programs: []iptables.Listing{{Backend: iptables.NFT, Version: "iptables v1.8.9 (nf_tables)", Tables: [2]map[string]iptables.Table{rules, rules}},
				{Backend: iptables.Legacy, Version: "iptables v1.8.9 (legacy)"}},
			Chains: []iptables.NativeChain{{Family: "ip", Table: "filter", Name: "DOCKER-USER"}, {Family: "bridge", Table: "netguard", Name: "prerouting", Busy: true},
				{Family: "bridge", Table: "netguard", Name: guard.UnknownPortChain}},
		},
		Links: Links{Links: []link.Device{{Name: "docker0", Kind: "bridge"}, {Name: "br-1", Kind: "bridge"}, {Name: "veth1", Kind: "veth", MasterName: "br-1"}, {Name: "eth0", Kind: "veth"}}},
		Agent: Agent{Socket: "/run/netguard/netguard.sock", Version: "v1.2.0",
			Status: control.Status{Mode: "enforce", Admission: "closed", InSync: true, Docker: control.Docker{Connected: true}, Endpoints: []control.Endpoint{{State: control.Admitted}}}},
		Config:   Files{Path: "/etc/netguard/netguard.yaml"},
		Policies: Files{Path: "/etc/netguard/policies", Count: "3 policies in 2 files"},
	}
}

// alone is a host without an agent.
func alone(f *Facts) {
	f.Agent = Agent{Socket: "/run/netguard/netguard.sock", Err: "agent cannot be reached", Absent: true}
}

func untried(f *Facts) {
	f.Shaper, f.Guard, f.Policy = Shaper{Untried: "no namespace"}, Guard{Untried: "no namespace"}, Policy{Untried: "no namespace"}
}

func TestHealthy(t *testing.T) {
	r := Judge(healthy())
	for _, c := range r.Checks {
		if c.Result != OK || c.Remedy != "" || c.Found == "" {
			t.Errorf("%+v", c)
		}
	}
	if r.Result != OK || r.OK != len(r.Checks) || r.Version != "v1.2.0" {
		t.Errorf("%+v", r)
	}
}

func TestJudge(t *testing.T) {
	rules := func(f *Facts) map[string]iptables.Table { return f.Firewall.Programs[0].Tables[0] }
	for name, test := range map[string]struct {
		change func(*Facts)
		check  string
		result Result
		found  string // a part of it
	}{
		"nobody_in_particular_is_not_enough": {func(f *Facts) { f.Host.Caps = 1 << 13 }, "host.capabilities", Fail, "lacks CAP_NET_ADMIN:"},
		"both_capabilities_are_named":        {func(f *Facts) { f.Host.Caps = 0 }, "host.capabilities", Fail, "CAP_NET_ADMIN and CAP_NET_RAW"},
		"capabilities_that_cannot_be_read":   {func(f *Facts) { f.Host.Err = "no /proc" }, "host.capabilities", Skip, "no /proc"},
		"an_old_kernel":                      {func(f *Facts) { f.Host.Kernel = "4.19.0-27-amd64" }, "host.kernel", Fail, "4.19.0"},
		"the_oldest_kernel":                  {func(f *Facts) { f.Host.Kernel = "5.0.0" }, "host.kernel", OK, ""},
		"a_kernel_with_a_strange_name":       {func(f *Facts) { f.Host.Kernel = "custom" }, "host.kernel", Skip, "custom"},
		"a_bridge_that_is_not_here":          {func(f *Facts) { f.Links.Links = f.Links.Links[:1] }, "host.namespace", Fail, "br-1 (network shop) is not here"},
		"a_device_that_only_has_the_name":    {func(f *Facts) { f.Links.Links[1].Kind = "dummy" }, "host.namespace", Fail, "br-1"},
		"somebody_elses_docker0":             {func(f *Facts) { f.Docker.Networks[0].Endpoints = 2 }, "host.namespace", Fail, "docker0 (network bridge) has 0 ports here, and 2 containers in Docker"},
		"bridges_of_an_engine_that_is_down":  {func(f *Facts) { f.Docker = Docker{Err: "down"} }, "host.namespace", Skip, "does not answer"},
		"an_engine_without_bridges":          {func(f *Facts) { f.Docker.Networks = nil }, "host.namespace", Skip, "no network"},
		"devices_that_cannot_be_listed":      {func(f *Facts) { f.Links.Err = "EPERM" }, "host.namespace", Skip, "EPERM"},
		"better_queues_are_missing":          {func(f *Facts) { f.Shaper = Shaper{Leaf: "hashed", Missing: []string{"fq_codel", "sfq"}} }, "shaper.limits", OK, "queues are hashed (the kernel lacks fq_codel, sfq)"},
		"no_IFB":                             {func(f *Facts) { f.Shaper = Shaper{Err: "x", HTB: true, Ingress: true} }, "shaper.limits", Fail, "lacks IFB:"},
		"no_HTB_and_no_ingress":              {func(f *Facts) { f.Shaper = Shaper{Err: "x", IFB: true} }, "shaper.limits", Fail, "lacks HTB, the ingress qdisc:"},
		"all_parts_and_no_limit":             {func(f *Facts) { f.Shaper = Shaper{Err: "x", IFB: true, HTB: true, Ingress: true} }, "shaper.limits", Fail, "cls_bpf"},
		"limits_by_the_agents_word":          {func(f *Facts) { untried(f); f.Agent.Status.Shaper.Leaf = "sfq" }, "shaper.limits", OK, "queues are sfq"},
		"limits_without_any_word":            {func(f *Facts) { untried(f); alone(f) }, "shaper.limits", Skip, "no namespace"},
		"guard_without_locked_ports":         {func(f *Facts) { f.Guard.Features.Locked = false; f.Guard.Features.Missing = []string{"locked"} }, "guard.tier", Warn, "without locked ports: the kernel lacks locked"},
		"guard_without_limits":               {func(f *Facts) { f.Guard.Features.Limits = false }, "guard.tier", Warn, "without limits of connections"},
		"guard_without_sticky":               {func(f *Facts) { f.Guard.Features.Sticky = false }, "guard.tier", Warn, "without sticky entries"},
		"guard_without_prefixes":             {func(f *Facts) { f.Guard.Features.Prefixes = false }, "guard.tier", Warn, "full, without prefixes"},
		"no_program_at_the_ports":            {func(f *Facts) { f.Guard.Features.Checksum = false }, "guard.checksum", Warn, "are refused as soon as"},
		"fragments_refused_by_the_agent": {func(f *Facts) {
			f.Agent.Status.Guard = control.Guard{Checksum: control.ByFragments, ChecksumMissing: "no BTF"}
		}, "guard.checksum", Warn, "(no BTF); fragments"},
		"fragments_pass":                {func(f *Facts) { f.Agent.Status.Guard = control.Guard{Checksum: control.ByNothing} }, "guard.checksum", Warn, "fragments pass"},
		"guard_by_the_filter_only":      {func(f *Facts) { f.Guard.Features = guard.Features{Filter: true} }, "guard.tier", Warn, "filter only"},
		"guard_by_the_ports_only":       {func(f *Facts) { f.Guard.Features = guard.Features{Locked: true, Sticky: true} }, "guard.tier", Fail, "ports only"},
		"no_guard":                      {func(f *Facts) { f.Guard.Features = guard.Features{} }, "guard.tier", Fail, "none"},
		"a_guard_that_cannot_be_probed": {func(f *Facts) { f.Guard.Err = "no bridge" }, "guard.tier", Fail, "no bridge"},
		"guard_by_the_agents_word":      {untried, "guard.tier", OK, "says the agent"},
		"guard_that_the_agent_misses": {func(f *Facts) {
			untried(f)
			f.Agent.Status.Guard = control.Guard{Tier: "filter only", Missing: []string{"sets"}}
		}, "guard.tier", Warn, "filter only, says the agent: the kernel lacks sets"},
		"guard_without_any_word":      {func(f *Facts) { untried(f); alone(f) }, "guard.tier", Skip, "no namespace"},
		"no_iptables":                 {func(f *Facts) { f.Firewall.Programs = nil }, "policy.iptables", Fail, "not installed"},
		"iptables_that_does_not_open": {func(f *Facts) { f.Policy.OpenErr = "no ip6tables" }, "policy.iptables", Fail, "no ip6tables"},
		"iptables_that_does_not_list": {func(f *Facts) {
			f.Firewall.Programs = f.Firewall.Programs[:1]
			f.Firewall.Programs[0].Err = "must be root"
		}, "policy.iptables", Fail, "must be root"},
		"a_backend_that_the_kernel_lacks": {func(f *Facts) { f.Firewall.Programs[1].Err = "no legacy" }, "policy.iptables", OK, "which Docker uses"},
		"rules_that_iptables_cannot_read": {func(f *Facts) { f.Firewall.Programs[0].Incompatible = true }, "policy.iptables", Fail, "cannot read"},
		"Docker_in_the_other_backend":     {func(f *Facts) { slices.Reverse(f.Firewall.Programs) }, "policy.iptables", OK, "other backend, nf_tables"},
		"both_backends":                   {func(f *Facts) { f.Firewall.Programs[1].Tables = f.Firewall.Programs[0].Tables }, "policy.backends", Warn, "nf_tables, legacy"},
		"both_backends_but_one_is_netguards": {func(f *Facts) {
			f.Firewall.Programs[1].Tables[0] = map[string]iptables.Table{"filter": {"FORWARD": {"-j NG-FORWARD"}, "NG-FORWARD": {"-j DROP"}}}
		}, "policy.backends", OK, "nf_tables only"},
		"empty_tables_of_the_other_backend": {func(f *Facts) {
			f.Firewall.Programs[1].Tables[0] = map[string]iptables.Table{"filter": {"FORWARD": nil}}
		}, "policy.backends", OK, "nf_tables only"},
		"no_rules_at_all":                {func(f *Facts) { f.Firewall.Programs[0].Tables = [2]map[string]iptables.Table{} }, "policy.backends", OK, "neither"},
		"a_type_of_set_is_missing":       {func(f *Facts) { f.Policy.Sets = []string{"hash:net (x): y"} }, "policy.sets", Fail, "hash:net"},
		"rules_that_cannot_be_written":   {func(f *Facts) { f.Policy.RulesErr = "no xt_set" }, "policy.rules", Fail, "no xt_set"},
		"connections_that_cannot_be_cut": {func(f *Facts) { f.Policy.CutErr = "no ctnetlink" }, "policy.rules", Fail, "no ctnetlink"},
		"rules_without_iptables":         {func(f *Facts) { f.Policy.OpenErr = "x" }, "policy.rules", Skip, "iptables"},
		"rules_that_were_not_tried":      {untried, "policy.rules", Skip, "no namespace"},
		"no_br_netfilter":                {func(f *Facts) { f.Host.BridgeFilter = nil }, "policy.bridges", Warn, "not between two containers of one network"},
		"the_hosts_switch_is_on":         {func(f *Facts) { f.Host.BridgeFilter = []string{"1", "1"} }, "policy.bridges", OK, "every bridge"},
		"the_hosts_switch_is_off":        {func(*Facts) {}, "policy.bridges", OK, "switches it on for single bridges"},
		"no_conntrack":                   {func(f *Facts) { f.Host.Connections, f.Host.MaxConnections = 0, 0 }, "policy.conntrack", Fail, "no table"},
		"conntrack_is_nearly_full":       {func(f *Facts) { f.Host.Connections = 200000 }, "policy.conntrack", Warn, "76 %"},
		"conntrack_is_full":              {func(f *Facts) { f.Host.Connections = 262144 }, "policy.conntrack", Fail, "drops new ones"},
		"an_engine_that_is_down":         {func(f *Facts) { f.Docker = Docker{Err: "refused"} }, "docker.engine", Fail, "refused"},
		"an_old_engine":                  {func(f *Facts) { f.Docker.Version = "19.03.15" }, "docker.engine", Fail, "19.03.15"},
		"a_slightly_old_engine":          {func(f *Facts) { f.Docker.Version = "20.9.0" }, "docker.engine", Fail, "20.9.0"},
		"the_oldest_engine":              {func(f *Facts) { f.Docker.Version = "20.10.24+dfsg1" }, "docker.engine", OK, "20.10.24"},
		"a_release_candidate":            {func(f *Facts) { f.Docker.Version = "29.0.0-rc.1" }, "docker.engine", OK, "29.0.0"},
		"an_engine_of_no_version":        {func(f *Facts) { f.Docker.Version = "dev" }, "docker.engine", Warn, `"dev"`},
		"a_rootless_engine":              {func(f *Facts) { f.Docker.Rootless = true }, "docker.rootless", Fail, "rootless"},
		"an_engine_that_does_not_tell":   {func(f *Facts) { f.Docker.InfoErr = "500" }, "docker.rootless", Skip, "500"},
		"live_restore_off":               {func(f *Facts) { f.Docker.LiveRestore = false }, "docker.live_restore", OK, "off"},
		"iptables_false":                 {func(f *Facts) { f.Firewall.Programs[0].Tables = [2]map[string]iptables.Table{} }, "docker.firewall", Warn, "iptables=false"},
		"Dockers_firewall_is_nftables": {func(f *Facts) {
			f.Docker.Firewall = "nftables"
			f.Firewall.Programs[0].Tables = [2]map[string]iptables.Table{}
		}, "docker.firewall", OK, "no DOCKER-USER"},
		"Dockers_firewall_cannot_be_read":  {func(f *Facts) { f.Firewall.Programs[0].Incompatible = true }, "docker.firewall", Skip, "cannot read"},
		"IPv6_that_Docker_does_not_filter": {func(f *Facts) { f.Firewall.Programs[0].Tables[1] = nil }, "docker.ip6tables", Warn, "shop"},
		"no_IPv6_and_no_filter":            {func(f *Facts) { f.Firewall.Programs[0].Tables[1] = nil; f.Docker.Networks[1].IPv6 = false }, "docker.ip6tables", OK, "no network has it"},
		"with_the_proxy":                   {func(*Facts) {}, "docker.userland_proxy", OK, "on:"},
		"without_the_proxy":                {func(f *Facts) { rules(f)["nat"]["OUTPUT"] = []string{"-m addrtype --dst-type LOCAL -j DOCKER"} }, "docker.userland_proxy", OK, "off"},
		"a_proxy_that_nothing_tells_of": {func(f *Facts) {
			f.Firewall.Programs[0].Tables[0]["nat"] = nil
			f.Firewall.Programs[0].Tables[1] = map[string]iptables.Table{"filter": rules(f)["filter"]}
		}, "docker.userland_proxy", Skip, "nat OUTPUT"},
		"rules_that_untrack": {func(f *Facts) {
			rules(f)["raw"] = iptables.Table{"PREROUTING": {"-p udp -m udp --dport 53 -j CT --notrack", "-p udp -j ACCEPT"}}
		}, "conflict.notrack", Warn, "iptables -t raw PREROUTING -p udp -m udp --dport 53"},
		"chains_of_nftables_that_untrack": {func(f *Facts) { f.Firewall.Untracked = []string{"table inet early, chain pre"} }, "conflict.notrack", Warn, "table inet early, chain pre"},
		"no_agent":                        {func(f *Facts) { alone(f); f.Firewall.Chains = nil; delete(rules(f)["filter"], "NG-FORWARD") }, "agent.running", Warn, "nothing is enforced"},
		"no_agent_but_its_rules":          {alone, "agent.running", Warn, "an earlier one are in force: admission is closed"},
		"no_agent_but_open_rules": {func(f *Facts) { alone(f); f.Firewall.Chains = f.Firewall.Chains[:2] }, "agent.running", Warn,
			"an earlier one are in force: admission is open"},
		"open_admission":                 {func(f *Facts) { f.Agent.Status.Admission = "open" }, "agent.admission", Warn, "open: a container sends"},
		"closed_admission_by_addresses":  {func(f *Facts) { f.Guard.Features.BridgeNames = false }, "agent.admission", OK, "no CONFIG_NFT_BRIDGE_META"},
		"monitor_mode":                   {func(f *Facts) { f.Agent.Status.Admission, f.Agent.Status.Mode = "open", "monitor" }, "agent.admission", OK, "(mode monitor)"},
		"an_agent_that_waits_for_Docker": {func(f *Facts) { f.Agent.Status.Admission = "" }, "agent.admission", Skip, "not written anything"},
		"an_agent_that_hangs":            {func(f *Facts) { alone(f); f.Agent.Holder = 4711 }, "agent.running", Fail, "process 4711 holds /run/netguard/netguard.sock.lock"},
		"an_agent_that_died":             {func(f *Facts) { alone(f); f.Agent.Absent = false }, "agent.running", Fail, "cannot be reached"},
		"an_agent_of_another_version":    {func(f *Facts) { f.Agent.Version = "v1.1.0" }, "agent.version", Warn, "the agent is v1.1.0, this is v1.2.0"},
		"a_second_agent":                 {func(f *Facts) { f.Agent.Other = "/run/netguard/netguard.sock" }, "agent.other", Warn, "/run/netguard/netguard.sock"},
		"an_agent_out_of_sync":           {func(f *Facts) { f.Agent.Status.InSync = false }, "agent.in_sync", Warn, "does not hold"},
		"an_agent_in_its_first_second":   {func(f *Facts) { f.Agent.Status.Docker.Connected, f.Agent.Status.Starting = false, true }, "agent.in_sync", Skip, "has just started"},
		"an_agent_without_Docker":        {func(f *Facts) { f.Agent.Status.Docker.Connected = false }, "agent.in_sync", Warn, "does not reach Docker: admission is closed"},
		"an_endpoint_that_is_wrong": {func(f *Facts) {
			f.Agent.Status.Endpoints[0] = control.Endpoint{Container: "db", Network: "back", State: control.Quarantined}
		}, "agent.endpoints", Warn, "1 endpoint is not as declared: db (back)"},
		"a_finding_of_the_agent":            {func(f *Facts) { f.Agent.Status.Findings = []string{"metrics are not served"} }, "agent.finding", Warn, "metrics"},
		"a_fault_in_the_configuration":      {func(f *Facts) { f.Config.Faults = []string{"x.yaml:2:1: a", "x.yaml:3:1: b"} }, "files.configuration", Fail, "x.yaml:2:1: a\nx.yaml:3:1: b"},
		"no_configuration":                  {func(f *Facts) { f.Config.Absent = true }, "files.configuration", OK, "the defaults hold"},
		"a_fault_in_a_policy":               {func(f *Facts) { f.Policies.Faults = []string{"db.yaml:3:5: unknown key"} }, "files.policies", Fail, "db.yaml:3:5"},
		"no_policies":                       {func(f *Facts) { f.Policies.Absent = true }, "files.policies", OK, "there are none"},
		"policies":                          {func(*Facts) {}, "files.policies", OK, "3 policies in 2 files"},
		"somebody_accepts_in_Dockers_chain": {func(f *Facts) { rules(f)["filter"]["DOCKER-USER"] = []string{"-s 192.0.2.1/32 -j ACCEPT"} }, "conflict.docker_user", Warn, "icc=false"},
		"ufw_behind_Dockers_chain":          {func(f *Facts) { rules(f)["filter"]["DOCKER-USER"] = []string{"-j ufw-user-forward"} }, "conflict.ufw_reload", Warn, "empties"},
		"another_table_of_bridges": {func(f *Facts) {
			f.Firewall.Chains = append(f.Firewall.Chains, iptables.NativeChain{Family: "bridge", Table: "mine", Name: "c", Busy: true}, iptables.NativeChain{Family: "bridge", Table: "mine", Name: "d", Busy: true})
		}, "conflict.bridge_tables", Warn, "(mine)"},
		"a_foreign_qdisc_at_the_root":    {func(f *Facts) { f.Links.Foreign = []Foreign{{"veth1", "br-1", "tbf", true}} }, "conflict.qdiscs", Warn, "tbf on veth1 (br-1): what the container receives"},
		"a_foreign_qdisc_at_ingress":     {func(f *Facts) { f.Links.Foreign = []Foreign{{"veth1", "br-1", "clsact", false}} }, "conflict.qdiscs", Warn, "what the container sends"},
		"nftables_that_cannot_be_listed": {func(f *Facts) { f.Firewall.Err = "EPERM" }, "conflict.unknown", Skip, "EPERM"},
		"an_empty_table_of_bridges": {func(f *Facts) {
			f.Firewall.Chains = append(f.Firewall.Chains, iptables.NativeChain{Family: "bridge", Table: "filter", Name: "FORWARD"})
		}, "conflict.none", OK, "no other"},
		"a_legacy_chain_of_another_firewall": {func(f *Facts) {
			f.Firewall.Programs[1].Tables[1] = map[string]iptables.Table{"filter": {"cali-FORWARD": nil}}
		}, "conflict.calico", Warn, "chain cali-FORWARD"},
		"a_device_of_another_firewall": {func(f *Facts) { f.Links.Links = append(f.Links.Links, link.Device{Name: "cilium_host"}) }, "conflict.cilium", Warn, "device cilium_host"},
		"a_table_of_another_firewall": {func(f *Facts) {
			f.Firewall.Chains = append(f.Firewall.Chains, iptables.NativeChain{Family: "inet", Table: "firewalld", Name: "x"})
		}, "conflict.firewalld", Warn, "table inet firewalld"},
		"a_bridge_that_is_named_like_one":      {func(f *Facts) { f.Docker.Networks[0].Bridge, f.Links.Links[0].Name = "virbr7", "virbr7" }, "conflict.none", OK, ""},
		"libvirt_is_told_of_and_is_no_problem": {func(f *Facts) { f.Links.Links = append(f.Links.Links, link.Device{Name: "virbr0", Kind: "bridge"}) }, "conflict.libvirt", OK, "virbr0"},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			test.change(&f)
			r := Judge(f)
			i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == test.check })
			if i < 0 {
				t.Fatalf("there is no %s in %+v", test.check, r.Checks)
			}
			c := r.Checks[i]
			if c.Result != test.result || !strings.Contains(c.Found, test.found) {
				t.Errorf("%+v instead of %s, %q", c, test.result, test.found)
			}
			// Whoever is told of a problem is told what to do, but for what the
			// agent says: that has its remedy in it.
			if problem := c.Result == Warn || c.Result == Fail; problem != (c.Remedy != "") && c.Name != "agent.finding" {
				t.Errorf("a %s with the remedy %q", c.Result, c.Remedy)
			}
			worst := OK
			for _, result := range []Result{Warn, Fail} {
				if slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Result == result }) {
					worst = result
				}
			}
			if r.Result != worst || r.OK+r.Warn+r.Fail+r.Skip != len(r.Checks) {
				t.Errorf("the report is %s (%d %d %d %d of %d) instead of %s", r.Result, r.OK, r.Warn, r.Fail, r.Skip, len(r.Checks), worst)
			}
		})
	}
}

// TestKnown has each program found by each of its marks, and by no more than that.
func TestKnown(t *testing.T) {
	names := map[string]bool{}
	for _, p := range known {
		names[p.name] = true
		for _, table := range p.tables {
			f := healthy()
			f.Firewall.Chains = append(f.Firewall.Chains, iptables.NativeChain{Family: "inet", Table: table, Name: "c"})
			only(t, p, f)
		}
		for _, chain := range p.chains {
			f := healthy()
			f.Firewall.Chains = append(f.Firewall.Chains, iptables.NativeChain{Family: "ip", Table: "filter", Name: chain})
			only(t, p, f)
		}
		for _, device := range p.links {
			f := healthy()
			f.Links.Links = append(f.Links.Links, link.Device{Name: device + "0"})
			only(t, p, f)
		}
	}
	if len(names) != len(known) {
		t.Error("two have the same name")
	}
}

func only(t *testing.T, p program, f Facts) {
	t.Helper()
	for _, c := range Judge(f).Checks {
		if conflict := strings.HasPrefix(c.Name, "conflict."); conflict && (c.Name != p.name || c.Result != p.result) {
			t.Errorf("%s is taken for %+v", p.name, c)
		}
	}
}

func TestFindingsAreBounded(t *testing.T) {
	f := healthy()
	for range 1000 {
		f.Agent.Status.Findings = append(f.Agent.Status.Findings, "x")
	}
	r := Judge(f)
	if r.Warn != maxFindings+1 || r.Checks[len(r.Checks)-3].Found != "980 more" {
		t.Errorf("%d warnings, %+v", r.Warn, r.Checks[len(r.Checks)-3])
	}
}

func TestJSON(t *testing.T) {
	text, err := json.Marshal(Report{Version: "v1", Result: Warn, Warn: 1, Checks: []Check{{"a.b", Warn, "x", "y"}}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"version":"v1","result":"warn","ok":0,"warn":1,"fail":0,"skip":0,"checks":[{"name":"a.b","result":"warn","found":"x","remedy":"y"}]}`
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
}
