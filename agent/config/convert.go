package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"netguard/netpolicy/guard"
	"netguard/shaper"
)

// maxSocket is the longest path that fits sun_path with its closing zero.
const maxSocket = 107

// convert makes the typed configuration out of what was written.
func (d *decoder) convert(r raw) Config {
	c := Default()
	c.Exclude, c.Unguarded = d.globs(r.exclude, checkGlob), d.globs(r.unguarded, checkGlob)
	c.Uplinks = d.globs(r.uplinks, checkGlob)
	c.DHCPServers = d.globs(r.dhcpServers, checkGlob)
	c.TrustImageLabels = d.globs(r.trustImages, checkImageGlob)
	if w := r.admission; w.Set() {
		switch w.Text {
		case "closed", "open":
			c.AdmissionOpen = w.Text == "open"
		default:
			d.Fault(w.At, "%s is %q: it is closed (nothing passes before all rules are in place) or open", w.Key, clip(w.Text))
		}
	}
	if w := r.storm; w.Set() {
		rate, err := strconv.ParseUint(w.Text, 10, 32)
		if err != nil {
			d.Fault(w.At, "%s is %q: it is a number of broadcast and multicast frames a second, 0 for no limit", w.Key, clip(w.Text))
		}
		c.Storm = guard.Storm{Rate: rate, Burst: uint32(2 * min(rate, 1<<20))}
	}
	if w := r.connections; w.Set() {
		n, err := strconv.ParseUint(w.Text, 10, 32)
		if err != nil || n > guard.MaxConnections {
			d.Fault(w.At, "%s is %q: it is how many connections a container may have open at a time, from 1 to %d, 0 for no limit", w.Key, clip(w.Text), guard.MaxConnections)
		}
		c.Connections = uint32(n)
	}
	if w := r.fragments; w.Set() {
		switch f := Fragments(w.Text); f {
		case FragmentsAuto, FragmentsPass, FragmentsRefuse:
			c.Fragments = f
		default:
			d.Fault(w.At, "%s is %q: it is auto (refused where the kernel cannot see what it writes late, and policies are about containers), pass or refuse", w.Key, clip(w.Text))
		}
	}
	if w := r.fragmentRate; w.Set() {
		n, err := strconv.ParseUint(w.Text, 10, 32)
		if err != nil || n > guard.MaxFragmentRate {
			d.Fault(w.At, "%s is %q: it is how many fragments of IP a second a container may send, from 1 to %d, 0 for no limit", w.Key, clip(w.Text), guard.MaxFragmentRate)
		}
		c.FragmentRate = uint32(n)
	}
	for _, w := range r.claims {
		p, err := netip.ParsePrefix(w.Text)
		if a, single := netip.ParseAddr(w.Text); single == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || p.Addr().Is4In6():
			d.Fault(w.At, "%s has %q: it is no address (192.0.2.10) and no prefix (192.0.2.0/28, 2001:db8::/64)", w.Key, clip(w.Text))
		case p != p.Masked():
			d.Fault(w.At, "%s has %q, with bits beyond its length: write %s", w.Key, clip(w.Text), p.Masked())
		default:
			c.Claims = append(c.Claims, p)
		}
	}
	for dir, pair := range [2][2]word{
		shaper.Ingress: {r.defaults.ingress, r.max.ingress},
		shaper.Egress:  {r.defaults.egress, r.max.egress},
	} {
		c.Limits.Default[dir] = d.rate(pair[0])
		c.Limits.Max[dir] = d.rate(pair[1])
		if def, most := c.Limits.Default[dir], c.Limits.Max[dir]; most != 0 && def > most {
			d.Fault(pair[0].At, "%s is %v, above %s, which is %v (line %d): lower the one or raise the other",
				pair[0].Key, def, pair[1].Key, most, pair[1].At.Line)
		}
	}
	d.truth(r.allowOptOut, &c.AllowOptOut)
	d.truth(r.admitUnknown, &c.AdmitUnknown)
	if w := r.swarmPorts; w.Set() {
		if c.SwarmPortsOpen = w.Text == "open"; w.Text != "open" && w.Text != "closed" {
			d.Fault(w.At, "%s is %q: it is closed (on a node of a Swarm, containers send nothing to Swarm's own ports) or open", w.Key, clip(w.Text))
		}
	}
	d.text(r.socket, &c.Socket, checkSocket)
	d.text(r.metrics, &c.Metrics, checkMetrics)
	d.text(r.dockerHost, &c.DockerHost, checkDockerHost)
	d.text(r.policyDir, &c.PolicyDir, checkPath)
	if w := r.logLevel; w.Set() {
		level, ok := levels[w.Text]
		if !ok {
			d.Fault(w.At, "%s is %q: it is debug, info, warn or error", w.Key, clip(w.Text))
		}
		c.Log.Level = level
	}
	d.text(r.logFormat, (*string)(&c.Log.Format), checkFormat)
	return c
}

func (d *decoder) globs(words []word, check func(string) error) Globs {
	var out Globs
	for _, w := range words {
		if err := check(w.Text); err != nil {
			d.Fault(w.At, "%s: %v", w.Key, err)
			continue
		}
		out = append(out, w.Text)
	}
	return out
}

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func (d *decoder) rate(w word) shaper.Rate {
	if !w.Set() {
		return 0
	}
	rate, err := shaper.ParseRate(w.Text)
	if err != nil {
		d.Fault(w.At, "%s: %v", w.Key, err)
	}
	return rate
}

func (d *decoder) truth(w word, to *bool) {
	switch {
	case !w.Set():
	case w.Text == "true" || w.Text == "false":
		*to = w.Text == "true"
	default:
		d.Fault(w.At, "%s is %q: it is true or false", w.Key, clip(w.Text))
	}
}

func (d *decoder) text(w word, to *string, check func(string) error) {
	if !w.Set() {
		return
	}
	if err := check(w.Text); err != nil {
		d.Fault(w.At, "%s is %q: %v", w.Key, clip(w.Text), err)
		return
	}
	*to = w.Text
}

func checkGlob(s string) error {
	if s == "" {
		return fmt.Errorf("the pattern is empty: write the name of a network, * stands for any characters")
	}
	return checkPattern(s)
}

// checkImageGlob refuses what fits no image's reference.
func checkImageGlob(s string) error {
	if s == "" {
		return fmt.Errorf("the pattern is empty: write an image as docker ps shows it, such as registry.example/team/*, * stands for any characters")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("pattern %q has a space or a control character in it, which no image's name has", clip(s))
	}
	return checkPattern(s)
}

func checkPattern(s string) error {
	if _, err := path.Match(s, ""); err != nil {
		return fmt.Errorf("pattern %q cannot be read: a [ has no ], or a \\ stands at the end", clip(s))
	}
	return nil
}

func checkPath(s string) error {
	if !filepath.IsAbs(s) {
		return fmt.Errorf("write an absolute path, one that starts with /")
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("the path has a control character in it")
	}
	return nil
}

func checkSocket(s string) error {
	if err := checkPath(s); err != nil {
		return err
	}
	if strings.HasSuffix(s, "/") {
		return fmt.Errorf("this is a directory: name the socket in it, such as %snetguard.sock", s)
	}
	if len(s) > maxSocket {
		return fmt.Errorf("the path of a unix socket has at most %d bytes, this one has %d", maxSocket, len(s))
	}
	return nil
}

func checkMetrics(s string) error {
	if s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("write an address and a port, such as %s, or \"\" for none", DefaultMetrics)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the port %q is not a number from 1 to 65535", clip(port))
	}
	if host != "" && host != "localhost" && net.ParseIP(host) == nil {
		return fmt.Errorf("%q is not an IP address of this host", clip(host))
	}
	return nil
}

func checkDockerHost(s string) error {
	if s == "" {
		return nil
	}
	const want = "write unix:///var/run/docker.sock, or tcp:// and a host and port"
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("this is not a URL: %s", want)
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || checkPath(u.Path) != nil {
			return fmt.Errorf("a unix URL has three slashes and an absolute path: %s", want)
		}
	case "tcp", "http", "https":
		if u.Host == "" {
			return fmt.Errorf("the URL names no host: %s", want)
		}
	default:
		return fmt.Errorf("its scheme is %q: %s", clip(u.Scheme), want)
	}
	return nil
}

func checkFormat(s string) error {
	if Format(s) != Text && Format(s) != JSON {
		return fmt.Errorf("it is text or json")
	}
	return nil
}
