package doctor

import "strings"

// oldestDocker is the engine whose events and chains netguard was built on.
const oldestDocker = "20.10"

func aboutDocker(c *checks, f Facts) {
	const name = "docker.engine"
	d := f.Docker
	if d.Err != "" {
		c.fail(name, "start dockerd (systemctl start docker), run this as root, or name the engine with --docker-host", "%s", d.Err)
		return
	}
	major, minor, ok := numbers(d.Version)
	switch {
	case !ok:
		c.warn(name, "see that it is "+oldestDocker+" or newer: docker version", "the version of the engine at %s is not known (%q)", d.Host, d.Version)
	case major < 20 || major == 20 && minor < 10:
		c.fail(name, "upgrade to Docker "+oldestDocker+" or newer", "Docker %s is too old", d.Version)
	default:
		c.ok(name, "Docker %s at %s", d.Version, d.Host)
	}
	switch {
	case d.InfoErr != "":
		c.skip("docker.rootless", "%s", d.InfoErr)
	case d.Rootless:
		c.fail("docker.rootless", "run dockerd as root", "dockerd is rootless: its bridges are in a namespace of its user's, behind a proxy, where netguard cannot guard what reaches the host")
	default:
		c.ok("docker.rootless", "dockerd runs as root")
	}
	aboutDockerFirewall(c, f)
	aboutUplinks(c, f)
	switch {
	case d.InfoErr != "":
		c.skip("docker.live_restore", "%s", d.InfoErr)
	case d.LiveRestore:
		c.ok("docker.live_restore", "on: containers run on without dockerd, and what is enforced for them stays")
	default:
		c.ok("docker.live_restore", "off: containers stop with dockerd")
	}
}

func aboutDockerFirewall(c *checks, f Facts) {
	const name = "docker.firewall"
	if f.Docker.Firewall == "nftables" {
		c.ok(name, "nftables, where there is no DOCKER-USER: netguard's rules stand in FORWARD, and refuse before or after Docker's")
		return
	}
	if why := f.Firewall.unread(); why != "" {
		c.skip(name, "%s", why)
		return
	}
	backend := f.Firewall.docker()
	if backend == "" {
		c.warn(name, "take iptables=false out of dockerd's options and /etc/docker/daemon.json, unless something else does its work",
			"Docker has no chains in iptables (iptables=false?): nobody isolates networks from each other, masquerades or publishes ports; netguard's rules stand in FORWARD and hold all the same")
		return
	}
	c.ok(name, "%s, backend %s", f.Docker.Firewall, backend)

	var six []string
	for _, n := range f.Docker.Networks {
		if n.IPv6 {
			six = append(six, n.Name)
		}
	}
	switch {
	case f.Firewall.docker6():
		c.ok("docker.ip6tables", "Docker filters IPv6 as well")
	case len(six) > 0:
		c.warn("docker.ip6tables", `"ip6tables": true in /etc/docker/daemon.json (before Docker 27 also "experimental": true)`,
			"Docker does not filter IPv6, and networks have it: %s; netguard's policies hold, Docker's own isolation of networks does not", some(six))
	default:
		c.ok("docker.ip6tables", "Docker does not filter IPv6, and no network has it")
	}

	// Docker translates connections to 127.0.0.0/8 only if the proxy is off.
	switch output := f.Firewall.rule("nat", "OUTPUT", func(r string) bool { return strings.HasSuffix(r, "-j DOCKER") }); {
	case output == "":
		c.skip("docker.userland_proxy", "Docker has no rule in nat OUTPUT that would tell")
	case strings.Contains(output, "127.0.0.0/8"), strings.Contains(output, "::1"):
		c.ok("docker.userland_proxy", "on: connections through docker-proxy come from the host itself, entity: host in a policy")
	default:
		c.ok("docker.userland_proxy", "off")
	}
}
