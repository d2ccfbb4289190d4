package conformance

// shop is the usual host of a case: three containers of one project, and one of another project,
// on one network.
func shop() []Container {
	return []Container{
		{Name: "web", Project: "shop", Service: "web", Networks: []string{"front"}},
		{Name: "api", Project: "shop", Service: "api", Networks: []string{"front"}, Labels: map[string]string{"tier": "logic"}},
		{Name: "db", Project: "shop", Service: "db", Networks: []string{"front"}, Labels: map[string]string{"tier": "data"}},
		{Name: "other", Project: "blog", Service: "web", Networks: []string{"front"}, Labels: map[string]string{"tier": "data"}},
	}
}

func front() []Network { return []Network{{Name: "front", IPv6: true}} }

var (
	web      = []string{"tcp/80"}
	outsider = []Outsider{{Name: "client", IPv4: "198.51.100.7", IPv6: "2001:db8:7::7"}}
)

func basics() []Case {
	return []Case{
		{
			Name: "no_policy", Why: "nothing is closed that no policy selects",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: []string{"tcp/80", "udp/53", "icmp/echo-request"},
			Want: []string{"+ *>* *"},
		},
		{
			Name: "default_deny_ingress", Why: "an empty list closes a direction, and only that",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: web,
			Policies: `{name: deny-in, select: {service: db}, ingress: []}`,
			Want:     []string{"+ *>* *", "- *>db *"},
		},
		{
			Name: "default_deny_egress", Why: "egress is closed alike, towards the host as well",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: web,
			Policies: `{name: deny-out, select: {service: db}, egress: []}`,
			Want:     []string{"+ *>* *", "- db>* *"},
		},
		{
			Name: "default_deny_both", Why: "a container with both lists empty is alone",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: []string{"tcp/80", "icmp/echo-request"},
			Policies: `{name: deny-all, select: {service: db}, ingress: [], egress: []}`,
			Want:     []string{"+ *>* *", "- *>db *", "- db>* *"},
		},
		{
			Name: "default_deny_everyone", Why: "an empty select is every container",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: web,
			Policies: `{name: deny-all, select: {}, ingress: [], egress: []}`,
			Want:     []string{"+ *>* *", "- web>* *", "- api>* *", "- db>* *", "- other>* *", "- *>web *", "- *>api *", "- *>db *", "- *>other *"},
		},
		{
			Name: "allow_all_ingress", Why: "a rule that names neither peers nor ports allows everything",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: []string{"tcp/80", "udp/53", "icmp/echo-request"},
			Policies: `{name: allow-in, select: {service: db}, ingress: [{}]}`,
			Want:     []string{"+ *>* *"},
		},
		{
			Name: "allow_all_egress", Why: "the same for egress",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: []string{"tcp/80", "udp/53"},
			Policies: `{name: allow-out, select: {service: db}, egress: [{}]}`,
			Want:     []string{"+ *>* *"},
		},
		{
			Name: "allow_all_beats_deny_all", Why: "policies add up: an empty list takes nothing from what another allows",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `
name: deny-in
select: {project: shop}
ingress: []
---
name: open-db
select: {service: db}
ingress: [{}]
`,
			Want: []string{"+ *>* *", "- *>web *", "- *>api *"},
		},
		{
			Name: "absent_is_not_empty", Why: "a direction that a policy does not mention stays as it is",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: only-egress, select: {service: db}, egress: [{to: [{service: api}]}]}`,
			Want:     []string{"+ *>* *", "- db>* *", "+ db>api *"},
		},
		{
			Name: "replies_need_no_rule", Why: "a connection is judged in the direction in which it is opened",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `
name: db
select: {project: shop, service: db}
ingress: [{from: [{service: api}]}]
egress: []
`,
			Want: []string{"+ *>* *", "- *>db *", "+ api>db *", "- db>* *"},
		},
	}
}
