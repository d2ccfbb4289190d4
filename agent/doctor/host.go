package doctor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// oldestMajor and oldestMinor are the oldest kernel that lets the guard read back its settings.
const oldestMajor, oldestMinor = 5, 0

func has(caps uint64, capability int) bool { return caps&(1<<capability) != 0 }

func aboutHost(c *checks, f Facts) {
	const capabilities = "host.capabilities"
	var lacks []string
	for _, k := range []struct {
		bit  int
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}} {
		if !has(f.Host.Caps, k.bit) {
			lacks = append(lacks, k.name)
		}
	}
	switch {
	case f.Host.Err != "":
		c.skip(capabilities, "%s", f.Host.Err)
	case len(lacks) > 0:
		c.fail(capabilities, "run this as root (sudo); in a container, give it --cap-add NET_ADMIN --cap-add NET_RAW and --network host",
			"this process lacks %s: much of what follows cannot be told", strings.Join(lacks, " and "))
	default:
		c.ok(capabilities, "CAP_NET_ADMIN and CAP_NET_RAW")
	}

	major, minor, ok := numbers(f.Host.Kernel)
	switch {
	case !ok:
		c.skip("host.kernel", "the release %q has no number", f.Host.Kernel)
	case major < oldestMajor || major == oldestMajor && minor < oldestMinor:
		c.fail("host.kernel", fmt.Sprintf("use Linux %d.%d or newer; 5.16 has all that the guard uses", oldestMajor, oldestMinor), "Linux %s is too old", f.Host.Kernel)
	default:
		c.ok("host.kernel", "Linux %s", f.Host.Kernel)
	}
	aboutNamespace(c, f)
}

// aboutNamespace tells whether Docker's bridges are here.
func aboutNamespace(c *checks, f Facts) {
	const name = "host.namespace"
	switch {
	case f.Docker.Err != "":
		c.skip(name, "Docker does not answer, so its bridges are not known")
		return
	case f.Links.Err != "":
		c.skip(name, "%s", f.Links.Err)
		return
	case len(f.Docker.Networks) == 0:
		c.skip(name, "Docker has no network with a bridge")
		return
	}
	ports := map[string]int{}
	bridges := map[string]bool{}
	for _, l := range f.Links.Links {
		bridges[l.Name] = bridges[l.Name] || l.Kind == "bridge"
		ports[l.MasterName]++
	}
	var missing []string
	for _, n := range f.Docker.Networks {
		switch {
		case !bridges[n.Bridge]:
			missing = append(missing, fmt.Sprintf("%s (network %s) is not here", n.Bridge, n.Name))
		case ports[n.Bridge] < n.Endpoints: // another one's docker0
			missing = append(missing, fmt.Sprintf("%s (network %s) has %s here, and %s in Docker", n.Bridge, n.Name,
				count(ports[n.Bridge], "port", "ports"), count(n.Endpoints, "container", "containers")))
		}
	}
	if len(missing) > 0 {
		c.fail(name, "run netguard in the network namespace of dockerd: nsenter --target PID_OF_DOCKERD --net netguard …; in a container, --network host",
			"dockerd seems to run in another network namespace: %s", some(missing))
		return
	}
	c.ok(name, "dockerd's: %s", count(len(f.Docker.Networks), "bridge of its networks is here", "bridges of its networks are here"))
}

// numbers gives the first two numbers of a version.
func numbers(version string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	notDigit := func(r rune) bool { return r < '0' || r > '9' }
	if i := strings.IndexFunc(rest, notDigit); i >= 0 {
		rest = rest[:i]
	}
	if strings.ContainsFunc(first, notDigit) {
		return 0, 0, false
	}
	major, err := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(rest)
	return major, minor, err == nil && err2 == nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// some lists a few of many.
func some(texts []string) string {
	const most = 3
	if len(texts) <= most {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s, and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
}

// readHost reads /proc. It does so for the calling thread.
func readHost() Host {
	var h Host
	status, err := os.ReadFile("/proc/thread-self/status")
	if err == nil {
		h.Caps, err = effective(string(status))
	}
	if err != nil {
		h.Err = fmt.Sprintf("the capabilities of this process cannot be read: %v", err)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		if text, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + name); err == nil {
			h.BridgeFilter = append(h.BridgeFilter, strings.TrimSpace(string(text)))
		}
	}
	h.Connections, h.MaxConnections = sysctl("netfilter/nf_conntrack_count"), sysctl("netfilter/nf_conntrack_max")
	return h
}

// effective finds the effective capabilities in /proc/thread-self/status.
func effective(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		}
	}
	return 0, fmt.Errorf("there is no CapEff in /proc/thread-self/status")
}

// sysctl reads a number, 0 where there is none.
func sysctl(name string) int {
	text, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}
