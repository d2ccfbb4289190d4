// Package metrics tells Prometheus what `netguard status` tells people, from the same Source.
// The number of series is a constant times the number of endpoints and unknown ports. No packet
// and no label of a container can add a series.
package metrics

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"netguard/agent/control"
	"netguard/internal/plain"
)

// scrapeTimeout is less than Prometheus' usual patience (10 s). So Prometheus gets netguard_up
// 0 instead of no answer.
const scrapeTimeout = 8 * time.Second

var (
	endpoint  = []string{"container", "network"}
	direction = []string{"container", "network", "direction"}
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("netguard_"+name, help, labels, nil)
}

var (
	up         = desc("up", "Whether the agent could read what the kernel holds (1) or not (0); then the others are missing.")
	info       = desc("info", "What runs, as labels; always 1.", "mode", "docker_version", "firewall", "leaf")
	inSync     = desc("in_sync", "Whether the kernel holds all that is wanted (1) or not (0).")
	connected  = desc("docker_connected", "Whether the engine's events are followed (1) or not (0).")
	verified   = desc("last_verified_timestamp_seconds", "When the kernel was last compared with what is wanted.")
	findings   = desc("findings", "Faults of the host and the configuration; netguard status names them.")
	unknown    = desc("unknown_ports", "Ports of managed bridges that are nobody's; netguard status names them.")
	unknownOf  = desc("unknown_port_withheld_total", "Frames that an unknown port sent (egress), or that were for it (ingress).", "port", "bridge", "direction")
	state      = desc("endpoint_state", "The state that the endpoint is in, as a label; always 1.", "container", "network", "state")
	faults     = desc("endpoint_findings", "Faults of the endpoint's labels and policies; netguard status names them.", endpoint...)
	bytes      = desc("endpoint_bytes_total", "Bytes of frames that passed, ingress and egress as the container sees them.", direction...)
	packets    = desc("endpoint_packets_total", "Frames that passed.", direction...)
	drops      = desc("endpoint_drops_total", "Frames that did not fit the queue of the limit.", direction...)
	limit      = desc("endpoint_rate_limit_bytes_per_second", "The limit, to compare with rate(netguard_endpoint_bytes_total[1m]); missing where there is none.", direction...)
	denied     = desc("endpoint_denied_total", "Packets that policies refused.", endpoint...)
	withheld   = desc("endpoint_withheld_total", "Frames that the endpoint sent (egress), or that were for it (ingress), while it was not admitted.", direction...)
	violations = desc("endpoint_violations_total", "Frames that the guard refused, by kind.", "container", "network", "kind")
)

// collector reads the status once a scrape.
type collector struct {
	ctx    context.Context // Prometheus hands none to Collect
	source control.Source
	log    *slog.Logger
}

func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{up, info, inSync, connected, verified, findings, unknown, unknownOf, withheld,
		state, faults, bytes, packets, drops, limit, denied, violations} {
		to <- d
	}
}

func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(c.ctx, scrapeTimeout)
	defer cancel()
	w := writer{to: to, log: c.log}
	s, err := c.source.Status(ctx)
	if err != nil {
		c.log.Warn("metrics cannot be read", "error", err)
		w.gauge(up, 0)
		return
	}
	w.gauge(up, 1)
	w.gauge(info, 1, s.Mode, s.Docker.Version, s.Docker.Firewall, s.Shaper.Leaf)
	w.gauge(inSync, truth(s.InSync))
	w.gauge(connected, truth(s.Docker.Connected))
	if !s.VerifiedAt.IsZero() {
		w.gauge(verified, float64(s.VerifiedAt.UnixMilli())/1000)
	}
	w.gauge(findings, float64(len(s.Findings)))
	w.gauge(unknown, float64(len(s.UnknownPorts)))
	for _, p := range s.UnknownPorts {
		w.counter(unknownOf, p.Withheld.Sent, p.Port, p.Bridge, "egress")
		w.counter(unknownOf, p.Withheld.Received, p.Port, p.Bridge, "ingress")
	}
	// A series that comes twice makes Prometheus lose the whole scrape. While one container
	// replaces another, a name is there twice for a moment.
	seen := make(map[[2]string]bool, len(s.Endpoints))
	for _, e := range s.Endpoints { // copies: the source may hand the same to others
		e.Container, e.Network = label(e.Container), label(e.Network)
		if key := [2]string{e.Container, e.Network}; !seen[key] {
			seen[key] = true
			w.endpoint(&e)
		}
	}
}

// writer makes metrics; what cannot be one is logged and costs only itself.
type writer struct {
	to  chan<- prometheus.Metric
	log *slog.Logger
}

func (w writer) endpoint(e *control.Endpoint) {
	at := []string{e.Container, e.Network}
	w.gauge(state, 1, e.Container, e.Network, e.State)
	w.gauge(faults, float64(len(e.Findings)), at...)
	if e.State == control.Unmanaged {
		return // nothing of it is counted
	}
	for _, d := range []struct {
		name string
		control.Traffic
		withheld uint64
	}{{"ingress", e.Ingress, e.Withheld.Received}, {"egress", e.Egress, e.Withheld.Sent}} {
		at := []string{e.Container, e.Network, d.name}
		w.counter(bytes, d.Bytes, at...)
		w.counter(packets, d.Packets, at...)
		w.counter(drops, d.Drops, at...)
		w.counter(withheld, d.withheld, at...)
		if d.RateBPS > 0 {
			w.gauge(limit, float64(d.RateBPS)/8, at...)
		}
	}
	w.counter(denied, e.Denied, at...)
	for kind, n := range map[string]uint64{
		"mac": e.Violations.MAC, "arp": e.Violations.ARP, "ip": e.Violations.IP,
		"nd": e.Violations.ND, "ethertype": e.Violations.Ethertype, "dhcp": e.Violations.DHCP,
		"storm": e.Violations.Storm, "connections": e.Violations.Connections,
		"checksum":  e.Violations.Checksum,
		"fragments": e.Violations.Fragments,
	} {
		w.counter(violations, n, e.Container, e.Network, kind)
	}
}

func (w writer) gauge(d *prometheus.Desc, v float64, labels ...string) {
	w.write(d, prometheus.GaugeValue, v, labels)
}

func (w writer) counter(d *prometheus.Desc, v uint64, labels ...string) {
	w.write(d, prometheus.CounterValue, float64(v), labels)
}

func (w writer) write(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = label(labels[i])
	}
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	if err != nil {
		w.log.Error("metric cannot be made", "metric", d.String(), "error", err)
		return
	}
	w.to <- m
}

// label makes a name safe as a label's value: a terminal may show it, and Prometheus' text
// format keeps escape sequences.
func label(name string) string { return plain.Text(strings.ToValidUTF8(name, "?")) }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
