package conformance

func selectors() []Case {
	return []Case{
		{
			Name: "by_label", Why: "peers by label, of any project where the policy has none",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: web, select: {service: web}, ingress: [{from: [{labels: {tier: data}}]}]}`,
			Want:     []string{"+ *>* *", "- *>web *", "- *>other *", "+ db>web *", "+ other>web *", "+ db>other *"},
		},
		{
			Name: "label_present", Why: `"*" asks only that the label is there`,
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: web, select: {project: shop, service: web}, ingress: [{from: [{labels: {tier: "*"}}]}]}`,
			Want:     []string{"+ *>* *", "- *>web *", "+ api>web *", "+ db>web *"},
		},
		{
			Name: "by_project", Why: "a project as a whole",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: shop, select: {project: shop}, ingress: [{from: [{project: shop}]}]}`,
			Want:     []string{"+ *>* *", "- other>* *"},
		},
		{
			Name: "own_project_by_default", Why: "peers without a project are of the policy's own",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: db, select: {project: shop, service: db}, ingress: [{from: [{service: web}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ web>db *"},
		},
		{
			Name: "any_project", Why: `project "*" reaches beyond the policy's own`,
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: db, select: {project: shop, service: db}, ingress: [{from: [{project: "*", service: web}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ web>db *", "+ other>db *"},
		},
		{
			Name: "empty_peer", Why: "a peer without keys is every container of the own project",
			Networks: front(), Containers: shop(), Outside: outsider, Host: true, Services: web,
			Policies: `{name: db, select: {project: shop, service: db}, ingress: [{from: [{}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ web>db *", "+ api>db *"},
		},
		{
			Name: "both", Why: "keys of one item must all fit",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: web, select: {project: shop, service: web}, ingress: [{from: [{project: "*", service: web, labels: {tier: data}}]}]}`,
			Want:     []string{"+ *>* *", "- *>web *", "+ other>web *"},
		},
		{
			Name: "either", Why: "two items are either one or the other",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: web, select: {project: shop, service: web}, ingress: [{from: [{project: blog}, {labels: {tier: data}}]}]}`,
			Want:     []string{"+ *>* *", "- *>web *", "+ other>web *", "+ db>web *"},
		},
		{
			Name: "by_name", Why: "containers by a pattern of their names, in select and in peers",
			Networks: front(), Containers: []Container{
				{Name: "shop-db-1", Networks: []string{"front"}}, {Name: "shop-db-2", Networks: []string{"front"}},
				{Name: "shop-dbx", Networks: []string{"front"}}, {Name: "backup", Networks: []string{"front"}},
			}, Services: web,
			Policies: `{name: db, select: {container: "shop-db-*"}, ingress: [{from: [{container: "back[tu]?"}, {container: "shop-db-[13]"}]}]}`,
			Want: []string{"+ *>* *", "- *>shop-db-1 *", "- *>shop-db-2 *",
				"+ backup>shop-db-1 *", "+ backup>shop-db-2 *", "+ shop-db-1>shop-db-2 *"},
		},
		{
			Name: "nobody", Why: "a peer that fits nobody opens nothing, in neither family",
			Networks: front(), Containers: shop(), Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{from: [{service: absent}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *"},
		},
		{
			Name: "networks", Why: "select and peers by network are about the endpoints on it",
			Networks: []Network{{Name: "front", IPv6: true}, {Name: "back", IPv6: true}, {Name: "old"}},
			Containers: []Container{
				{Name: "web", Networks: []string{"front", "back"}},
				{Name: "db", Networks: []string{"back", "old"}},
				{Name: "tool", Networks: []string{"front", "back", "old"}},
			}, Services: web,
			Policies: `
name: back
select: {network: back}
ingress: [{from: [{network: back, container: web}]}]
---
name: front
select: {container: web, network: front}
ingress: [{from: [{container: tool, network: old}]}]
`,
			Want: []string{"+ *>* *", "- *>*@back *", "+ web>db@back *", "+ web>tool@back *", "- *>web@front *"},
		},
	}
}
