package conformance

func together() []Case {
	return []Case{
		{
			Name: "egress_and_ingress", Why: "a connection needs the sender's egress and the receiver's ingress",
			Networks: front(), Containers: shop(), Services: []string{"tcp/80", "tcp/81"},
			Policies: `
name: web-out
select: {project: shop, service: web}
egress: [{to: [{service: db}]}, {to: [{service: api}], ports: [tcp/80]}]
---
name: db-in
select: {project: shop, service: db}
ingress: [{from: [{service: api}]}, {from: [{service: web}], ports: [tcp/81]}]
`,
			Want: []string{"+ *>* *", "- web>* *", "+ web>api tcp/80", "- *>db *", "+ api>db *", "+ web>db tcp/81"},
		},
		{
			Name: "overlap", Why: "a container that several policies select has what all of them allow",
			Networks: front(), Containers: shop(), Services: []string{"tcp/80", "tcp/81", "tcp/82"},
			Policies: `
name: by-service
select: {project: shop, service: db}
ingress: [{from: [{service: web}], ports: [tcp/80]}]
---
name: by-label
select: {labels: {tier: data}}
ingress: [{from: [{service: api}], ports: [tcp/81]}]
---
name: by-name
select: {container: d*}
ingress: [{from: [{container: other}], ports: [tcp/80-81]}]
`,
			Want: []string{"+ *>* *", "- *>db *", "- *>other *", "+ web>db tcp/80", "+ api>db tcp/81", "+ api>other tcp/81",
				"+ other>db tcp/80", "+ other>db tcp/81"},
		},
		{
			Name: "deny_wins", Why: "a guardrail wins over every allow, and does not close the rest",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: []string{"tcp/80", "tcp/22"},
			Policies: `
name: open
select: {}
ingress: [{}]
egress: [{}]
---
name: guardrails
select: {project: shop}
deny:
  - ingress: {from: [{project: blog}]}
  - egress: {to: [{entity: host}], ports: [tcp/22]}
  - egress: {to: [{cidr: 198.51.100.7/32}, {cidr: "2001:db8:7::7/128"}]}
`,
			Want: []string{"+ *>* *", "- other>web *", "- other>api *", "- other>db *",
				"- web>host tcp/22", "- api>host tcp/22", "- db>host tcp/22",
				"- web>client *", "- api>client *", "- db>client *"},
		},
		{
			Name: "deny_alone", Why: "a policy with nothing but a guardrail isolates nobody",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: web,
			Policies: `{name: no-db, select: {service: web}, deny: [{egress: {to: [{service: db}]}}]}`,
			Want:     []string{"+ *>* *", "- web>db *", "- other>db *"},
		},
		{
			Name: "deny_everything", Why: "a guardrail without peers and ports cuts off, whatever is allowed",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: []string{"tcp/80", "icmp/echo-request"},
			Policies: `
name: cut
select: {service: db}
deny: [{ingress: {}}, {egress: {}}]
---
name: open
select: {service: db}
ingress: [{from: [{service: api}]}]
`,
			Want: []string{"+ *>* *", "- *>db *", "- db>* *"},
		},
		{
			Name: "deny_external_only", Why: "a guardrail against the world leaves containers and the host alone",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: web,
			Policies: `{name: internal, select: {project: shop}, deny: [{egress: {to: [{entity: external}]}}, {ingress: {from: [{entity: external}]}}]}`,
			Want: []string{"+ *>* *", "- web>client *", "- api>client *", "- db>client *",
				"- client>web *", "- client>api *", "- client>db *"},
		},
		{
			Name: "three_tiers", Why: "the example that everybody starts with",
			Networks: []Network{{Name: "front", IPv6: true}, {Name: "back"}},
			Containers: []Container{
				{Name: "web", Project: "shop", Service: "web", Networks: []string{"front"}, Publish: []Publish{{8080, 80, "tcp"}}},
				{Name: "api", Project: "shop", Service: "api", Networks: []string{"front", "back"}},
				{Name: "db", Project: "shop", Service: "db", Networks: []string{"back"}},
				{Name: "cron", Project: "shop", Service: "cron", Networks: []string{"back"}},
			},
			Outside: outsider, Host: true, Services: []string{"tcp/80", "tcp/5432", "udp/53"},
			Policies: `
name: shop
select: {project: shop}
ingress: []
egress: [{to: [{entity: any}], ports: [udp/53]}]
---
name: web
select: {project: shop, service: web}
ingress: [{from: [{entity: external}], ports: [tcp/80]}]
egress: [{to: [{service: api}], ports: [tcp/80]}]
---
name: api
select: {project: shop, service: api}
ingress: [{from: [{service: web}], ports: [tcp/80]}]
egress: [{to: [{service: db}], ports: [tcp/5432]}]
---
name: db
select: {project: shop, service: db}
ingress: [{from: [{service: api}], ports: [tcp/5432]}]
`,
			Want: []string{"- *>* *", "+ *>host udp/53", "+ *>client udp/53", "+ client>web tcp/80",
				"+ web>api@front tcp/80", "+ api>db@back tcp/5432"},
		},
	}
}
