package conformance

func peers() []Case {
	outside := []Outsider{
		{Name: "client", IPv4: "198.51.100.7", IPv6: "2001:db8:7::7"},
		{Name: "guest", IPv4: "198.51.100.200", IPv6: "2001:db8:7::ff"},
		{Name: "far", IPv4: "203.0.113.9", IPv6: "2001:db8:9::9"},
	}
	v4 := []Network{{Name: "front"}}
	return []Case{
		{
			Name: "cidr", Why: "a CIDR is the addresses in it, of one family, be they of containers or not",
			Networks: v4, Containers: shop(), Outside: outside, Host: true, Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{cidr: 198.51.100.0/24}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ client>db *", "+ guest>db *"},
		},
		{
			Name: "cidr_except", Why: "an exception is cut out",
			Networks: v4, Containers: shop(), Outside: outside, Services: web,
			Policies: `{name: db, select: {service: db}, egress: [{to: [{cidr: 0.0.0.0/0, except: [198.51.100.128/25, 172.30.0.0/16]}]}]}`,
			Want:     []string{"+ *>* *", "- db>* *", "+ db>client *", "+ db>far *"},
		},
		{
			Name: "cidr_except_by_another_rule", Why: "what one item leaves out another may allow",
			Networks: v4, Containers: shop(), Outside: outside, Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{cidr: 198.51.100.0/24, except: [198.51.100.128/25]}, {cidr: 198.51.100.200/32}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ client>db *", "+ guest>db *"},
		},
		{
			Name: "cidr_of_containers", Why: "addresses of containers and of the host are addresses too",
			Networks: v4, Containers: shop(), Outside: outside, Host: true, Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{cidr: 172.30.1.0/24}]}]}`,
			Want:     []string{"+ *>* *", "- client>db *", "- guest>db *", "- far>db *"},
		},
		{
			Name: "cidr_ipv6", Why: "IPv6 alike",
			Networks: front(), Containers: shop(), Outside: outside, Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{cidr: "2001:db8:7::/64", except: ["2001:db8:7::f0/124"]}, {cidr: 198.51.100.7/32}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ client>db *"},
		},
		{
			Name: "entity_host", Why: "the host is neither a container nor the world",
			Networks: front(), Containers: shop(), Outside: outside, Host: true, Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{entity: host}]}], egress: [{to: [{entity: host}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "- db>* *", "+ host>db *", "+ db>host *"},
		},
		{
			Name: "entity_external", Why: "the world is neither a container nor the host",
			Networks: front(), Containers: shop(), Outside: outside, Host: true, Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{entity: external}]}], egress: [{to: [{entity: external}]}]}`,
			Want: []string{"+ *>* *", "- *>db *", "- db>* *",
				"+ client>db *", "+ guest>db *", "+ far>db *", "+ db>client *", "+ db>guest *", "+ db>far *"},
		},
		{
			Name: "entity_any", Why: "anyone is everyone",
			Networks: front(), Containers: shop(), Outside: outside, Host: true, Services: []string{"tcp/80", "tcp/81"},
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{entity: any}], ports: [tcp/80]}]}`,
			Want:     []string{"+ *>* *", "- *>db tcp/81"},
		},
		{
			Name: "containers_are_not_the_world", Why: "a container peer opens neither the host nor the world",
			Networks: front(), Containers: shop(), Outside: outside, Host: true, Services: web,
			Policies: `{name: db, select: {service: db}, egress: [{to: [{project: "*"}]}]}`,
			Want:     []string{"+ *>* *", "- db>host *", "- db>client *", "- db>guest *", "- db>far *"},
		},
	}
}
