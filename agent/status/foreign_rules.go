package status

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"netguard/netpolicy/iptables"
)

// ForeignRules reads foreign rules on request: those that decide about a packet before
// netguard's rules do.
type ForeignRules struct {
	Options iptables.Options

	mu     sync.Mutex
	driver *iptables.Driver // from the first question on
}

func (o *ForeignRules) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.driver != nil {
		o.driver.Close()
	}
}

func (o *ForeignRules) get(ctx context.Context) (*iptables.Others, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.driver == nil {
		driver, err := iptables.Open(ctx, o.Options)
		if err != nil {
			return nil, fmt.Errorf("read the host's rules: %w", err)
		}
		o.driver = driver
	}
	others, err := o.driver.ReadOthers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the host's rules: %w", err)
	}
	return others, nil
}

// untracked says what follows for policies if rules take packets out of the table of
// connections; "" if there are no such rules.
func untracked(rules []string) string {
	if len(rules) == 0 {
		return ""
	}
	const most = 3
	text := strings.Join(rules[:min(most, len(rules))], "; ")
	if more := len(rules) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Sprintf("the host has rules that take packets out of the table of connections (%s): answers of what policies allow are refused where the client's ingress or the server's egress is closed, since nothing tells that they are answers: take containers' addresses out of these rules, or allow the answers as connections of their own", text)
}
