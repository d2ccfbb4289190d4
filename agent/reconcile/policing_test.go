package reconcile

import (
	"log/slog"
	"testing"
	"time"
)

func TestNextLook(t *testing.T) {
	now := time.Now()
	p := newPolicing(slog.New(slog.DiscardHandler), nil, nil, func() time.Time { return now })
	p.check.Begin()
	p.check.Failed()
	p.check.Begin()
	if p.rest(); !p.check.Next().Equal(now.Add(PoliceEvery)) {
		t.Errorf("the next look is in %v", p.check.Next().Sub(now))
	}
	// Somebody else wrote rules, and at the same moment a container came.
	p.soon([]string{"iptables"})
	p.check.Begin()
	if p.rest(); !p.check.Next().Equal(now.Add(verifySoon)) {
		t.Errorf("what somebody else did is looked at in %v", p.check.Next().Sub(now))
	}
}
