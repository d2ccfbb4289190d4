package netpolicy

// candidates finds the endpoints that a selector may fit without asking each of them.
type candidates struct {
	services, projects, networks map[string][]int
}

func candidatesOf(endpoints []Endpoint) candidates {
	c := candidates{services: map[string][]int{}, projects: map[string][]int{}, networks: map[string][]int{}}
	for i := range endpoints {
		e := &endpoints[i]
		add(c.services, e.Service, i)
		add(c.projects, e.Project, i)
		add(c.networks, e.Network, i)
		for j := range e.Shared {
			add(c.services, e.Shared[j].Service, i)
			add(c.projects, e.Shared[j].Project, i)
		}
	}
	return c
}

// add notes an endpoint under a name, once.
func add(to map[string][]int, name string, i int) {
	if all := to[name]; name != "" && (len(all) == 0 || all[len(all)-1] != i) {
		to[name] = append(all, i)
	}
}

// each calls f for the candidates of a selector, of n endpoints, in their order.
func (c candidates) each(s Selector, n int, f func(int)) {
	var some []int
	switch {
	case s.service != "":
		some = c.services[s.service]
	case s.project != "":
		some = c.projects[s.project]
	case s.network != "":
		some = c.networks[s.network]
	default:
		for i := range n {
			f(i)
		}
		return
	}
	for _, i := range some {
		f(i)
	}
}
