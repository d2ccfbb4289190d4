package conformance

func services() []Case {
	return []Case{
		{
			Name: "one_port", Why: "a port is one of one protocol",
			Networks: front(), Containers: shop(), Outside: outsider, Services: []string{"tcp/5432", "tcp/5433", "udp/5432", "icmp/echo-request"},
			Policies: `{name: db, select: {service: db}, ingress: [{ports: [tcp/5432]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ *>db tcp/5432"},
		},
		{
			Name: "port_range", Why: "both ends of a range are in it",
			Networks: front(), Containers: shop(), Services: []string{"tcp/7999", "tcp/8000", "tcp/8050", "tcp/8100", "tcp/8101"},
			Policies: `{name: db, select: {service: db}, ingress: [{ports: [tcp/8000-8100]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ *>db tcp/8000", "+ *>db tcp/8050", "+ *>db tcp/8100"},
		},
		{
			Name: "many_ports", Why: "more ports than one match of the packet filter holds",
			Networks: front(), Containers: shop(), Services: []string{"tcp/1", "tcp/2", "tcp/31", "tcp/39", "tcp/40", "tcp/70", "tcp/75", "tcp/76"},
			Policies: `{name: db, select: {service: db}, ingress: [{ports: [tcp/1, tcp/3, tcp/5, tcp/7, tcp/9, tcp/11, tcp/13, tcp/15, tcp/17, tcp/19,
  tcp/21, tcp/23, tcp/25, tcp/27, tcp/29, tcp/31, tcp/33, tcp/35, tcp/37, tcp/39, tcp/50-60, tcp/65-75]}]}`,
			Want: []string{"+ *>* *", "- *>db *", "+ *>db tcp/1", "+ *>db tcp/31", "+ *>db tcp/39", "+ *>db tcp/70", "+ *>db tcp/75"},
		},
		{
			Name: "whole_protocol", Why: "a protocol without a port is all of its ports",
			Networks: front(), Containers: shop(), Services: []string{"tcp/1", "tcp/65535", "udp/53", "sctp/3868"},
			Policies: `{name: db, select: {service: db}, ingress: [{ports: [tcp, sctp/3868]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ *>db tcp/1", "+ *>db tcp/65535", "+ *>db sctp/3868"},
		},
		{
			Name: "same_port_two_protocols", Why: "protocols of one port are apart",
			Networks: front(), Containers: shop(), Services: []string{"tcp/53", "udp/53", "sctp/53"},
			Policies: `{name: db, select: {service: db}, ingress: [{ports: [udp/53]}, {from: [{service: api}], ports: [tcp/53]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ *>db udp/53", "+ api>db tcp/53"},
		},
		{
			Name: "ping", Why: "ICMP by type is the same question in both families",
			Networks: front(), Containers: shop(), Host: true, Services: []string{"icmp/echo-request", "tcp/80"},
			Policies: `{name: db, select: {service: db}, ingress: [{ports: [icmp/echo-request]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ *>db icmp/echo-request"},
		},
		{
			Name: "ports_go_with_their_peers", Why: "a port of one rule is not one of another rule's peers",
			Networks: front(), Containers: shop(), Services: []string{"tcp/80", "tcp/81"},
			Policies: `{name: db, select: {project: shop, service: db}, ingress: [{from: [{service: web}], ports: [tcp/80]}, {from: [{service: api}], ports: [tcp/81]}]}`,
			Want:     []string{"+ *>* *", "- *>db *", "+ web>db tcp/80", "+ api>db tcp/81"},
		},
	}
}
