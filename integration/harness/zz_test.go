package harness_test

import (
	"fmt"
	"netguard/integration/harness"
	"testing"
	"time"
)

func TestZZ(t *testing.T) {
	b := time.Now()
	step := func(s string) { t.Log(s, time.Since(b)); b = time.Now() }
	e2 := harness.Start(t, harness.WithLegacyIptables(), harness.Flags("--live-restore"))
	step("start legacy")
	e2.Run("x1")
	step("run1")
	c := e2.Run("x2", harness.From("iperf3"))
	step("iperf")
	e2.RestartDaemon()
	step("restart")
	e2.KillDaemon()
	step("kill")
	e2.StartDaemon()
	step("start")
	e2.KillDaemon()
	step("kill")
	e2.StartDaemon()
	step("start")
	fmt.Println(e2.Output("iptables", "-S", "FORWARD"))
	fmt.Println(e2.Output("iptables", "-V"))
	t.Log(c.PID())
	t.Cleanup(func() { step("gone") })
}
