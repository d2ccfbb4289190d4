package iptables

// What the tests of package iptables_test use.
var (
	Alone    = alone
	Run      = run
	Docker   = docker
	NoBridge = func(d *Driver) { d.bridgeFilter = "/none" }
)

// Generation is a wish that has rules and sets named after a letter, about n containers
// that are served and as many that may reach them.
func Generation(letter string, n int) Wish {
	all := many(2 * n)
	s := small{generation: letter, web: all[:2*n], db: all[2*n:]}
	for _, a := range all {
		s.homes = append(s.homes, Home{Addr: a, Bridge: "br0"})
	}
	return s.wish()
}
