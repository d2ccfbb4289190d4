package conformance

const (
	ingress = "netguard.ingress"
	egress  = "netguard.egress"
)

// labelled is the shop with labels on its database.
func labelled(labels map[string]string) []Container {
	all := shop()
	all[2].Labels = labels
	return all
}

func labels() []Case {
	return []Case{
		{
			Name: "label_ingress", Why: "a label closes its container like a policy that selects it alone",
			Networks: front(), Containers: labelled(map[string]string{ingress: "- from: [{service: api}]\n  ports: [tcp/80]\n"}),
			Outside: outsider, Host: true, Services: []string{"tcp/80", "tcp/81"},
			Want: []string{"+ *>* *", "- *>db *", "+ api>db tcp/80"},
		},
		{
			Name: "label_egress_nothing", Why: "an empty list lets nothing out",
			Networks: front(), Containers: labelled(map[string]string{egress: "[]"}), Outside: outsider, Host: true, Services: web,
			Want: []string{"+ *>* *", "- db>* *"},
		},
		{
			Name: "label_narrows_policy", Why: "where a policy closes too, a connection needs both",
			Networks: front(), Containers: labelled(map[string]string{ingress: "[{from: [{service: api}, {project: blog, service: web}]}]"}), Services: []string{"tcp/80", "tcp/81"},
			Policies: `{name: db, select: {project: shop, service: db}, ingress: [{from: [{service: api}, {service: web}], ports: [tcp/80]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ api>db tcp/80"},
		},
		{
			Name: "label_opens_nothing", Why: "a label that allows everything opens nothing that a policy closes",
			Networks: front(), Containers: labelled(map[string]string{ingress: "[{}]", egress: "[{}]"}), Services: web,
			Policies: `{name: db, select: {project: shop, service: db}, ingress: [], egress: [{to: [{service: api}]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "- db>* *", "+ db>api *"},
		},
		{
			Name: "label_does_not_speak_for_others", Why: "an egress label does not open the ingress of another",
			Networks: front(), Containers: labelled(map[string]string{egress: "[{to: [{service: web}, {service: api}]}]"}), Services: web,
			Policies: `{name: web, select: {project: shop, service: web}, ingress: []}`,
			Want:     []string{"+ *>* *", "- *>web *", "- db>* *", "+ db>api *"},
		},
		{
			Name: "deny_beats_label", Why: "a guardrail wins over what a label allows",
			Networks: front(), Containers: labelled(map[string]string{ingress: "[{from: [{service: api}]}]"}), Services: web,
			Policies: `{name: no-api, select: {service: db}, deny: [{ingress: {from: [{service: api}]}}]}`,
			Want:     []string{"+ *>* *", "- *>db *"},
		},
		{
			Name: "label_fault", Why: "a label that cannot be read closes its container both ways, and nobody else",
			Networks: front(), Containers: labelled(map[string]string{ingress: "- form: [{service: api}]\n"}), Outside: outsider, Host: true, Services: web,
			Want: []string{"+ *>* *", "- *>db *", "- db>* *"},
		},
		{
			Name: "label_misspelt", Why: "a label that was meant to be one closes its container as well",
			Networks: front(), Containers: labelled(map[string]string{"netguard.ingres": "[]"}), Outside: outsider, Host: true, Services: web,
			Policies: `{name: db, select: {service: db}, ingress: [{}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "- db>* *"},
		},
		{
			Name: "two_labels_of_one_text", Why: "containers with the same label are apart where their projects are",
			Networks: front(), Containers: []Container{
				{Name: "a1", Project: "a", Service: "one", Networks: []string{"front"}, Labels: map[string]string{ingress: "[{from: [{service: two}]}]"}},
				{Name: "a2", Project: "a", Service: "two", Networks: []string{"front"}, Labels: map[string]string{ingress: "[]"}},
				{Name: "b1", Project: "b", Service: "one", Networks: []string{"front"}, Labels: map[string]string{ingress: "[{from: [{service: two}]}]"}},
				{Name: "b2", Project: "b", Service: "two", Networks: []string{"front"}},
			}, Services: web,
			Want: []string{"+ *>* *", "- *>a1 *", "+ a2>a1 *", "- *>a2 *", "- *>b1 *", "+ b2>b1 *"},
		},
	}
}
