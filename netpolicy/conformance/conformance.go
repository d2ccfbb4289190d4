// Package conformance is a table of what policies mean: containers, policies, and who then
// reaches whom. It holds no code that decides. Whatever enforces policies can be asked about each
// row: the compiled rule set, or a host with real containers.
package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Case is a small host and what shall be true on it.
type Case struct {
	Name string
	Why  string // what it is there to show
	// Networks are the Docker networks, in the order of their subnets.
	Networks   []Network
	Containers []Container
	Outside    []Outsider
	Host       bool // the host is asked about too
	// Policies are the documents of one policy file.
	Policies string
	// Services are asked about for every pair.
	Services []string
	// Want says who reaches whom. The last line that fits a probe counts. The first line is there
	// to fit every probe. "+ web>db tcp/80" opens, "- *>db *" closes, and "+ web>db@back *" is
	// about one network.
	Want []string
}

// Network is a bridge network that netguard manages.
type Network struct {
	Name string
	IPv6 bool
}

// Container is a container, as Docker Compose labels it.
type Container struct {
	Name             string
	Project, Service string
	Networks         []string
	Labels           map[string]string
	Publish          []Publish
}

// Publish is a port of the host that leads to one of the container.
type Publish struct {
	Host, Port uint16
	Proto      string
}

// Outsider is a machine that is neither a container nor the host. It reaches a container by the
// container's own port, as if a published port were translated already.
type Outsider struct {
	Name string
	IPv4 string
	IPv6 string // "" for none
}

// Probe is one row of the matrix: a connection that is tried.
type Probe struct {
	From, To string // names; "host" for the host
	Network  string // that both are on, or that the container leaves by
	Service  string // tcp/80, icmp/echo-request
	Open     bool
}

func (p Probe) String() string {
	return fmt.Sprintf("%s>%s@%s %s", p.From, p.To, p.Network, p.Service)
}

// HostName is the host's name in probes.
const HostName = "host"

// Subnet4 and Subnet6 are the subnets of the network with that index; the host is
// the first address of each.
func Subnet4(network int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, byte(network + 1), 0}), 24)
}

func Subnet6(network int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x30, 0, byte(network + 1)}), 64)
}

// HostAddr is the host's address on a network.
func HostAddr(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next() }

// Addr is the address of the container with that index on a network.
func Addr(subnet netip.Prefix, container int) netip.Addr {
	raw := subnet.Addr().AsSlice()
	raw[len(raw)-1] = byte(10 + container)
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// NetworkIndex gives the place of a network, or -1.
func (c *Case) NetworkIndex(name string) int {
	return slices.IndexFunc(c.Networks, func(n Network) bool { return n.Name == name })
}

// Matrix gives every probe of the case with what is wanted.
func (c *Case) Matrix() []Probe {
	var all []Probe
	add := func(from, to, network string) {
		for _, s := range c.Services {
			p := Probe{From: from, To: to, Network: network, Service: s}
			for _, line := range c.Want {
				if open, fits := c.fits(line, p); fits {
					p.Open = open
				}
			}
			all = append(all, p)
		}
	}
	for _, from := range c.Containers {
		for _, network := range from.Networks {
			for _, to := range c.Containers {
				if to.Name != from.Name && slices.Contains(to.Networks, network) {
					add(from.Name, to.Name, network)
				}
			}
			if c.Host {
				add(from.Name, HostName, network)
				add(HostName, from.Name, network)
			}
			for _, o := range c.Outside {
				add(from.Name, o.Name, network)
				add(o.Name, from.Name, network)
			}
		}
	}
	return all
}

// fits reads a line of Want and tells whether it is about a probe.
func (c *Case) fits(line string, p Probe) (open, fits bool) {
	words := strings.Fields(line)
	if len(words) != 3 || words[0] != "+" && words[0] != "-" {
		panic(fmt.Sprintf("case %s: cannot read %q", c.Name, line))
	}
	ends, network, on := strings.Cut(words[1], "@")
	from, to, arrow := strings.Cut(ends, ">")
	if !arrow || !c.knows(from) || !c.knows(to) || on && c.NetworkIndex(network) < 0 ||
		words[2] != "*" && !slices.Contains(c.Services, words[2]) {
		panic(fmt.Sprintf("case %s: %q is about nobody", c.Name, line))
	}
	is := func(pattern, name string) bool { return pattern == "*" || pattern == name }
	return words[0] == "+", is(from, p.From) && is(to, p.To) && is(words[2], p.Service) && (!on || network == p.Network)
}

func (c *Case) knows(name string) bool {
	return name == "*" || name == HostName && c.Host ||
		slices.ContainsFunc(c.Containers, func(o Container) bool { return o.Name == name }) ||
		slices.ContainsFunc(c.Outside, func(o Outsider) bool { return o.Name == name })
}

// Cases gives the whole table.
func Cases() []Case {
	return slices.Concat(basics(), selectors(), services(), peers(), together(), labels())
}
