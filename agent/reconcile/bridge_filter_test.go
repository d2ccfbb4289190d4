package reconcile

import (
	"testing"
	"time"
)

// TestBridgeIsCheckedWithNewRules: another program switches a bridge off, and policies change at
// the same moment.
func TestBridgeIsCheckedWithNewRules(t *testing.T) {
	w := newWorld(t)
	c := w.come("front", service(1))
	w.policies(1)
	w.run(12 * time.Second)
	if !w.rules.HandsOver("br-front") {
		t.Fatal("the bridge hands nothing over")
	}
	set := w.loop.policing.bridges.set
	w.rules.SwitchOff("br-front")
	w.damaged()
	w.told(c.port.Master)
	w.policies(2)
	if w.run(50 * time.Millisecond); !w.rules.HandsOver("br-front") {
		t.Errorf("the bridge hands nothing over 50 ms after the kernel reported that; set before: %v, now: %v", set, w.loop.policing.bridges.set)
	}
	w.settle(90 * time.Second)
	w.check()
}

// TestBridgeIsCheckedAfterContention: while programs contend for a bridge, new policies are no reason
// to check it sooner, and a report of that time is not forgotten.
func TestBridgeIsCheckedAfterContention(t *testing.T) {
	w := newWorld(t)
	c := w.come("front", service(1))
	w.policies(1)
	w.run(2 * time.Second)
	b := &w.loop.policing.bridges
	for i := 0; !w.now.Before(b.contest.until()); i++ {
		if i > 100 {
			t.Fatal("no contention")
		}
		w.run(150 * time.Millisecond)
		w.rules.SwitchOff("br-front")
		w.damaged()
		w.told(c.port.Master)
		w.run(5 * time.Millisecond)
	}
	w.rules.SwitchOff("br-front")
	w.damaged()
	w.told(c.port.Master)
	w.policies(2)
	if w.run(50 * time.Millisecond); w.rules.HandsOver("br-front") {
		t.Fatal("it is switched on during the wait")
	}
	if w.run(2 * minRest); !w.rules.HandsOver("br-front") {
		t.Error("it hands nothing over after the wait")
	}
	w.settle(90 * time.Second)
	w.check()
}
