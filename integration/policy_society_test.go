package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// society is who may call whom, in a form that is simple enough to be told
// without netguard: each has a list of peers and protocols for each direction, or
// none and is open.
type society struct {
	names []string
	in    map[string][]string // "peer tcp"; absent: open
	out   map[string][]string
	deny  map[string][]string // egress guardrails
}

func (s *society) allows(from, to, protocol string) bool {
	has := func(m map[string][]string, who, peer string) bool {
		list, closed := m[who]
		return !closed || slices.Contains(list, peer+" "+protocol)
	}
	return has(s.in, to, from) && has(s.out, from, to) && !slices.Contains(s.deny[from], to+" "+protocol)
}

func (s *society) files() map[string]string {
	files := map[string]string{}
	list := func(peers []string, side string) string {
		var items []string
		for _, p := range peers {
			name, protocol, _ := strings.Cut(p, " ")
			items = append(items, fmt.Sprintf("{%s: [{container: %s}], ports: [%s]}", side, name, protocol))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	for who, peers := range s.in {
		files["in-"+who+".yaml"] = fmt.Sprintf("{name: in-%s, select: {container: %s}, ingress: %s}\n", who, who, list(peers, "from"))
	}
	for who, peers := range s.out {
		files["out-"+who+".yaml"] = fmt.Sprintf("{name: out-%s, select: {container: %s}, egress: %s}\n", who, who, list(peers, "to"))
	}
	for who, peers := range s.deny {
		var items []string
		for _, p := range peers {
			name, protocol, _ := strings.Cut(p, " ")
			items = append(items, fmt.Sprintf("{egress: {to: [{container: %s}], ports: [%s]}}", name, protocol))
		}
		files["deny-"+who+".yaml"] = fmt.Sprintf("{name: deny-%s, select: {container: %s}, deny: [%s]}\n", who, who, strings.Join(items, ", "))
	}
	return files
}

// change changes the rules of one or two, at random.
func (s *society) change(r *rand.Rand) string {
	var told []string
	for range 1 + r.IntN(2) {
		who := s.names[r.IntN(len(s.names))]
		var peers []string
		for _, p := range s.names {
			for _, protocol := range []string{"tcp", "udp"} {
				if p != who && r.IntN(2) == 0 {
					peers = append(peers, p+" "+protocol)
				}
			}
		}
		m, what := s.in, "in"
		switch r.IntN(5) {
		case 0, 1:
			m, what = s.out, "out"
		case 2:
			m, what = s.deny, "deny"
			peers = peers[:min(len(peers), 2)]
		}
		if r.IntN(3) == 0 || what == "deny" && len(peers) == 0 {
			delete(m, who)
			what += " open"
		} else {
			m[who] = peers
		}
		told = append(told, fmt.Sprintf("%s %s %v", who, what, m[who]))
	}
	return strings.Join(told, "; ")
}
