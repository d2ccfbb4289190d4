package status

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"netguard/agent/control"
	"netguard/netpolicy"
)

// Whom people mean by what they write.
func TestParty(t *testing.T) {
	endpoint := func(id, name, addr string) *netpolicy.Endpoint {
		return &netpolicy.Endpoint{Workload: netpolicy.Workload{ID: id, Name: name}, Network: "n", Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	endpoints := []*netpolicy.Endpoint{
		endpoint("abcd1234ef", "web", "10.0.0.2"), endpoint("abcd99", "db", "10.0.0.3"), endpoint("0123456789", "cafe", "10.0.0.4"),
	}
	// One whose name is what another's ID begins with.
	endpoints = append(endpoints, endpoint("beef000000", "fish", "10.0.0.5"), endpoint("ffff000000", "beef", "10.0.0.6"))
	rules := &netpolicy.RuleSet{}
	local := map[netip.Addr]bool{}
	for _, a := range []string{"127.0.0.1", "::1", "fe80::1", "169.254.1.1", "10.0.0.1", "192.0.2.1", "2001:db8::1"} {
		local[netip.MustParseAddr(a)] = true
	}
	for text, want := range map[string]string{
		"web": "web", "/web": "web", "abcd1": "web", "ABCD1234EF": "web", "/abcd9": "db", "10.0.0.3": "db", "::ffff:10.0.0.4": "cafe", "cafe": "cafe", "beef": "beef", "beef0": "fish", "/0123": "cafe",
	} {
		p, err := party(text, rules, endpoints, local)
		if err != nil || len(p.Endpoints) != 1 || p.Name != want {
			t.Errorf("%q is %+v, %v, want %s", text, p, err, want)
		}
	}
	for text, want := range map[string]string{"WEB": "is no container", "abcd": "more than one", "/": "is no container", "abc": "is no container"} {
		if p, err := party(text, rules, endpoints, local); !errors.Is(err, control.ErrUnknownParty) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %+v, %v", text, p, err)
		}
	}
	host, err := party("host", rules, endpoints, local)
	var addrs []string
	for _, a := range host.Addrs {
		addrs = append(addrs, a.String())
	}
	if got := strings.Join(addrs, " "); err != nil || !host.Host || got != "10.0.0.1 192.0.2.1 2001:db8::1" {
		t.Errorf("the host is %q, %v", got, err)
	}
	if p, err := party("127.0.0.1", rules, endpoints, local); err != nil || !p.Host || len(p.Addrs) != 1 {
		t.Errorf("an address of the host that was asked for is %+v, %v", p, err)
	}
	if p, err := party("external", rules, endpoints, map[netip.Addr]bool{netip.MustParseAddr("203.0.113.1"): true}); err != nil || p.Host || len(p.Addrs) != 2 || p.Addrs[0].String() == "203.0.113.1" {
		t.Errorf("somebody outside is %+v, %v", p, err)
	}
}
