package integration

import (
	"strings"
	"syscall"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestBorrowedMAC has a container with NET_ADMIN take another's MAC and address before
// the agent could look, and wait: it gets the other's place neither when that one
// ends and Docker is too busy to say so, nor keeps it from its place afterwards.
func TestBorrowedMAC(t *testing.T) {
	t.Parallel()
	e := Start(t)
	e.Network("net", Subnet("198.18.95.0/24"))
	p := e.Proxy()
	a := e.Agent(Policy("db.yaml", "name: db\nselect: {container: db}\ningress: [{from: [{container: victim}]}]\n"), AgentFlags("--docker-host", p.Host()))
	db := e.Run("db", On("net"))
	db.Inside().Serve("tcp", ":80")
	victim := e.Run("victim", On("net"))
	a.AwaitStatus("both are admitted", AllAdmitted)
	victim.Inside().CanReach("tcp", db.Addr("net", 80))
	mac, address := victim.MAC("net"), victim.IP("net").String()

	// A port that the agent looks at late.
	a.Process().Signal(syscall.SIGSTOP)
	liar := e.Run("liar", On("net"), Cap("NET_ADMIN"))
	borrow := func() {
		liar.Inside().Output("sh", "-c", "ip link set eth0 address "+mac+"; ip addr flush dev eth0; ip addr add "+address+"/24 dev eth0")
	}
	borrow()
	a.Process().Signal(syscall.SIGCONT)
	closed := func(s control.Status) bool {
		ep, ok := Endpoint(s, liar, "net")
		return ok && ep.State == control.Quarantined
	}
	a.AwaitStatus("the liar is in quarantine", closed)

	// Its chance: the other's port goes, and Docker does not say so.
	p.Hang(func(path string) bool { return !strings.HasPrefix(path, "/events") })
	victim.Kill("KILL")
	victim.Wait()
	a.AwaitStatus("the victim's port is gone", func(s control.Status) bool {
		ep, ok := Endpoint(s, victim, "net")
		return ok && !Whole(ep) || !ok
	})
	liar.Inside().CannotReach("tcp", db.Addr("net", 80))
	if s := a.Status(); !closed(s) {
		t.Errorf("the liar is not in quarantine: %+v", s.Endpoints)
	}
	p.Spoil(nil)

	victim.Start()
	a.AwaitStatus("the victim is admitted, and the liar is not", func(s control.Status) bool {
		ep, ok := Endpoint(s, victim, "net")
		return ok && Whole(ep) && ep.State == control.Admitted && closed(s)
	})
	victim.Inside().CanReach("tcp", db.Addr("net", 80))
	liar.Inside().CannotReach("tcp", db.Addr("net", 80))

	// It was there first when the other comes.
	victim.Stop()
	a.AwaitStatus("the victim is gone", func(s control.Status) bool { _, ok := Endpoint(s, victim, "net"); return !ok })
	a.Process().Signal(syscall.SIGSTOP)
	liar.Restart()
	borrow()
	victim.Start()
	a.Process().Signal(syscall.SIGCONT)
	a.AwaitStatus("the victim is admitted, though both came unseen", func(s control.Status) bool {
		ep, ok := Endpoint(s, victim, "net")
		return ok && Whole(ep) && ep.State == control.Admitted
	})
	victim.Inside().CanReach("tcp", db.Addr("net", 80))
}

// TestBorrowedMACHidden has the liar keep its link down, so that its MAC is never
// final, until the other's port is gone.
func TestBorrowedMACHidden(t *testing.T) {
	t.Parallel()
	e := Start(t)
	e.Network("net", Subnet("198.18.96.0/24"))
	p := e.Proxy()
	a := e.Agent(Policy("db.yaml", "name: db\nselect: {container: db}\ningress: [{from: [{container: victim}]}]\n"), AgentFlags("--docker-host", p.Host()))
	db := e.Run("db", On("net"))
	db.Inside().Serve("tcp", ":80")
	victim := e.Run("victim", On("net"))
	a.AwaitStatus("both are admitted", AllAdmitted)
	victim.Inside().CanReach("tcp", db.Addr("net", 80))
	mac, address := victim.MAC("net"), victim.IP("net").String()

	a.Process().Signal(syscall.SIGSTOP)
	liar := e.Run("liar", On("net"), Cap("NET_ADMIN"))
	liar.Inside().Output("sh", "-c", "ip link set eth0 down; ip link set eth0 address "+mac)
	a.Process().Signal(syscall.SIGCONT)
	closed := func(s control.Status) bool {
		ep, ok := Endpoint(s, liar, "net")
		return ok && ep.State == control.Quarantined
	}
	a.AwaitStatus("the liar is in quarantine", closed)

	p.Hang(func(path string) bool { return !strings.HasPrefix(path, "/events") })
	victim.Kill("KILL")
	victim.Wait()
	a.AwaitStatus("the victim's port is gone", func(s control.Status) bool {
		ep, ok := Endpoint(s, victim, "net")
		return ok && !Whole(ep) || !ok
	})
	liar.Inside().Output("sh", "-c", "ip addr flush dev eth0; ip addr add "+address+"/24 dev eth0; ip link set eth0 up")
	liar.Inside().CannotReach("tcp", db.Addr("net", 80))
	if s := a.Status(); !closed(s) {
		t.Errorf("the liar is not in quarantine: %+v", s.Endpoints)
	}
	p.Spoil(nil)
	victim.Start()
	a.AwaitStatus("the victim is admitted, and the liar is not", func(s control.Status) bool {
		ep, ok := Endpoint(s, victim, "net")
		return ok && Whole(ep) && ep.State == control.Admitted && closed(s)
	})
	victim.Inside().CanReach("tcp", db.Addr("net", 80))
}
