package harness_test

import (
	"testing"

	"netguard/integration/harness"
)

func TestEngine(t *testing.T) {
	e := harness.Start(t, harness.WithOutside(), harness.WithIPv6())
	n := e.Network("backend", harness.Subnet("10.7.0.0/24"), harness.Subnet("fd00:7::/64"))
	db := e.Run("db", harness.On(n.Name), harness.Doing("serve", "tcp", ":5432", "udp", ":53"), harness.Publish("8080:5432"))
	db.AwaitLog("serving")
	web := e.Run("web", harness.On("backend", "10.7.0.9"))

	t.Run("containers reach each other", func(t *testing.T) {
		in := web.For(t).Inside()
		in.CanReach("tcp", db.Addr("backend", 5432))
		in.CanReach("udp", db.Addr("backend", 53))
		in.CanReach("tcp", db.Addr6("backend", 5432))
		in.CannotReach("tcp", db.Addr("backend", 5433))
		for _, ip := range []string{db.IP("backend").String(), db.IP6("backend").String()} {
			if r := in.Probe("ping", ip, "3"); !r.OK() {
				t.Error(r)
			}
		}
	})
	t.Run("docker exec tells the exit code", func(t *testing.T) {
		web := web.For(t)
		if r := web.Exec("/probe", "connect", "tcp", db.Addr("backend", 5432)); !r.OK() {
			t.Error(r)
		}
		if r := web.Exec("/probe", "connect", "tcp", db.Addr("backend", 1)); r.Code != 1 {
			t.Error(r)
		}
	})
	t.Run("outside reaches a published port, and is reached", func(t *testing.T) {
		e := e.For(t)
		e.Outside.CanReach("tcp", "198.51.100.1:8080")
		if line := db.AwaitLog("from 198.51.100.2:"); line == "" {
			t.Error("the server should see the outside address")
		}
		e.Outside.Serve("tcp", ":80", "udp", ":53")
		web.For(t).Inside().CanReach("tcp", harness.OutsideIPv4.String()+":80")
		web.For(t).Inside().CanReach("tcp", "["+harness.OutsideIPv6.String()+"]:80")
	})
}
