package netpolicy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	c "netguard/netpolicy/conformance"
)

// The policies that ship, each on a host where it matters.
func TestShippedPolicies(t *testing.T) {
	shop := func(services ...string) []c.Container {
		var all []c.Container
		for _, s := range services {
			all = append(all, c.Container{Name: s, Project: "shop", Service: s, Networks: []string{"front"}})
		}
		return append(all, c.Container{Name: "other", Project: "blog", Service: "web", Networks: []string{"front"}})
	}
	world := c.Outsider{Name: "world", IPv4: "203.0.113.9", IPv6: "2001:db8:ff::9"}
	v6 := []c.Network{{Name: "front", IPv6: true}}
	v4 := []c.Network{{Name: "front"}}
	// The clouds' metadata services, by any address.
	var clouds []c.Outsider
	metadata := []string{"+ *>* *"}
	for i, at := range [][2]string{{"169.254.169.254", "fd00:ec2::254"}, {"169.254.170.2", "fd00:ec2::23"}, {"169.254.170.23", "fd20:ce::254"},
		{"169.254.169.252", "fd00:c1::a9fe:a9fe"}, {"192.0.0.192", "fd00:100::100:200"}, {"100.100.100.200", "fd00:42::42"}, {"169.254.0.23", "fd00:a9fe:a9fe::1"},
		{"169.254.10.10", "fe80::a9fe:a9fe"}, {"100.96.0.96", ""}, {"100.80.80.80", ""}, {"169.254.42.42", ""}, {"169.254.169.250", ""}} {
		name := fmt.Sprintf("cloud%d", i)
		clouds = append(clouds, c.Outsider{Name: name, IPv4: at[0], IPv6: at[1]})
		metadata = append(metadata, "- a>"+name+" *", "- other>"+name+" *")
	}
	cases := map[string][]c.Case{
		"default-deny": {{
			Networks: v6, Containers: shop("a", "b"), Outside: []c.Outsider{world}, Host: true, Services: []string{"tcp/80", "udp/53", "icmp/echo-request"},
			Want: []string{"+ *>* *", "- *>a *", "- *>b *", "- a>* *", "- b>* *", "+ a>b *", "+ b>a *",
				"+ a>host udp/53", "+ b>host udp/53", "+ a>world udp/53", "+ b>world udp/53", "+ a>other udp/53", "+ b>other udp/53"},
		}},
		"internal-only": {{
			Networks: v6, Containers: shop("a", "b"), Outside: []c.Outsider{world}, Host: true, Services: []string{"tcp/80", "udp/53"},
			Want: []string{"+ *>* *", "- world>a *", "- world>b *", "- a>world *", "- b>world *"},
		}},
		"web-api-database": {{
			Networks: v6, Containers: shop("web", "api", "db"), Outside: []c.Outsider{world}, Host: true,
			Services: []string{"tcp/80", "tcp/443", "tcp/8080", "tcp/5432", "udp/53"},
			Want: []string{"- *>* *", "+ other>world *", "+ other>host *", "+ host>other *", "+ world>other *",
				"+ world>web tcp/80", "+ world>web tcp/443", "+ web>api tcp/8080", "+ api>db tcp/5432",
				"+ web>host udp/53", "+ web>world udp/53", "+ web>other udp/53", "+ api>host udp/53", "+ api>world udp/53", "+ api>other udp/53"},
		}},
		"no-cloud-metadata": {{
			Networks: v6, Containers: shop("a"), Outside: append(clouds, world, c.Outsider{Name: "names", IPv4: "169.254.169.253", IPv6: "fd00:ec2::253"}),
			Host: true, Services: []string{"tcp/80", "tcp/443", "udp/53", "icmp/echo-request", "sctp/80"}, Want: metadata,
		}, {
			Networks: v6, Containers: shop("a"), Outside: []c.Outsider{world, {Name: "azure", IPv4: "168.63.129.16"}}, Host: true,
			Services: []string{"tcp/52", "tcp/53", "tcp/54", "tcp/80", "tcp/32526", "udp/53", "udp/80", "sctp/53", "icmp/echo-request", "tcp/51678", "tcp/51679", "tcp/51680"},
			Want: []string{"+ *>* *", "- a>azure *", "- other>azure *", "+ a>azure tcp/53", "+ other>azure tcp/53", "+ a>azure udp/53", "+ other>azure udp/53",
				"- *>host tcp/51678", "- *>host tcp/51679"},
		}},
		"no-container-to-swarm": {{
			Networks: v6, Containers: shop("a"), Outside: []c.Outsider{world}, Host: true,
			Services: []string{"tcp/2377", "udp/4789", "tcp/7946", "udp/7946", "udp/53", "tcp/80"},
			Want: []string{"+ *>* *", "- *>host tcp/2377", "- *>host udp/4789", "- *>host tcp/7946", "- *>host udp/7946", "- a>world tcp/2377", "- a>world udp/4789", "- a>world tcp/7946", "- a>world udp/7946",
				"- other>world tcp/2377", "- other>world udp/4789", "- other>world tcp/7946", "- other>world udp/7946"},
		}},
		"no-container-to-host": {{
			Networks: v6, Containers: shop("a"), Outside: []c.Outsider{world}, Host: true,
			Services: []string{"tcp/22", "tcp/53", "udp/53", "udp/52", "tcp/54", "tcp/65535", "icmp/echo-request"},
			Want:     []string{"+ *>* *", "- *>host *", "+ *>host tcp/53", "+ *>host udp/53"},
		}},
		"published-from-cidr": {{
			Networks: v6, Containers: shop("admin", "web"), Host: true, Services: []string{"tcp/8080", "tcp/22"},
			Outside: []c.Outsider{world, {Name: "office", IPv4: "192.0.2.7", IPv6: "2001:db8:1::7"}},
			Want:    []string{"+ *>* *", "- *>admin *", "+ office>admin tcp/8080", "+ web>admin *"},
		}, {
			Networks: v4, Containers: shop("admin"), Services: []string{"tcp/8080"}, Outside: []c.Outsider{{Name: "guest", IPv4: "192.0.2.200"}},
			Want: []string{"+ *>* *", "- *>admin *"},
		}},
		"egress-allowlist": {{
			Networks: v6, Containers: shop("worker", "db"), Host: true, Services: []string{"tcp/443", "tcp/80", "udp/53"},
			Outside: []c.Outsider{world, {Name: "bank", IPv4: "198.51.100.7", IPv6: "2001:db8:2::7"}},
			Want: []string{"+ *>* *", "- worker>* *", "+ worker>db *", "+ worker>bank tcp/443",
				"+ worker>host udp/53", "+ worker>world udp/53", "+ worker>bank udp/53", "+ worker>other udp/53"},
		}},
	}
	files, err := filepath.Glob("../policies/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var sources []Source
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, Source{Name: file, Data: data})
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(string(data), "# ") || !strings.Contains(string(data), "\n# When: ") {
				t.Error("the file does not say when to use it")
			}
			for _, p := range Load(texts(file, string(data))).Policies() {
				if p.Description() == "" {
					t.Errorf("policy %s has no description", p.Name())
				}
			}
			if len(cases[name]) == 0 {
				t.Fatal("nothing is asked about the file")
			}
			for _, test := range cases[name] {
				test.Name, test.Policies = name, string(data)
				conforms(t, test)
			}
		})
	}
	t.Run("all_at_once", func(t *testing.T) {
		if faults := Load(sources).Faults(); len(faults) > 0 {
			t.Error(faults)
		}
		if len(sources) != len(cases) {
			t.Errorf("%d files, %d are asked about", len(sources), len(cases))
		}
	})
	t.Run("the_list_names_each", func(t *testing.T) {
		list, err := os.ReadFile("../policies/README.md")
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(files, func(f string) bool { return !strings.Contains(string(list), filepath.Base(f)) }); i >= 0 {
			t.Errorf("%s is not in the list", files[i])
		}
	})
}
