package integration

import (
	"strings"
	"syscall"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// borrowing is a container with NET_ADMIN that takes another's MAC and address before
// the agent could look, and waits for the other's place.
type borrowing struct {
	p                *Proxy
	a                *Agent
	db, victim, liar *Container
	mac, address     string // the victim's
}

// newBorrowing has the liar do its first steps while the agent is stopped.
func newBorrowing(t *testing.T, subnet string, first func(*borrowing)) *borrowing {
	t.Helper()
	e := Start(t)
	e.Network("net", Subnet(subnet))
	b := &borrowing{p: e.Proxy()}
	b.a = e.Agent(Policy("db.yaml", "name: db\nselect: {container: db}\ningress: [{from: [{container: victim}]}]\n"), AgentFlags("--docker-host", b.p.Host()))
	b.db = e.Run("db", On("net"))
	b.db.Inside().Serve("tcp", ":80")
	b.victim = e.Run("victim", On("net"))
	b.a.AwaitStatus("both are admitted", AllAdmitted)
	b.victim.Inside().CanReach("tcp", b.db.Addr("net", 80))
	b.mac, b.address = b.victim.MAC("net"), b.victim.IP("net").String()
	b.a.Process().Signal(syscall.SIGSTOP)
	b.liar = e.Run("liar", On("net"), Cap("NET_ADMIN"))
	first(b)
	b.a.Process().Signal(syscall.SIGCONT)
	b.a.AwaitStatus("the liar is in quarantine", b.closed)
	return b
}

// lie has the liar change what is its own.
func (b *borrowing) lie(commands ...string) {
	b.liar.Inside().Output("sh", "-c", strings.Join(commands, "; "))
}

func (b *borrowing) takeMAC() string { return "ip link set eth0 address " + b.mac }
func (b *borrowing) takeAddress() string {
	return "ip addr flush dev eth0; ip addr add " + b.address + "/24 dev eth0"
}

// closed tells that the liar is in quarantine.
func (b *borrowing) closed(s control.Status) bool {
	ep, ok := Endpoint(s, b.liar, "net")
	return ok && ep.State == control.Quarantined
}

// open tells that the victim is admitted.
func (b *borrowing) open(s control.Status) bool {
	ep, ok := Endpoint(s, b.victim, "net")
	return ok && Whole(ep) && ep.State == control.Admitted
}

// chance is the liar's: the other's port goes, and Docker does not say so. Then the
// other comes back.
func (b *borrowing) chance(t *testing.T, then func()) {
	t.Helper()
	b.p.Hang(func(path string) bool { return !strings.HasPrefix(path, "/events") })
	b.victim.Kill("KILL")
	b.victim.Wait()
	b.a.AwaitStatus("the victim's port is gone", func(s control.Status) bool {
		ep, ok := Endpoint(s, b.victim, "net")
		return ok && !Whole(ep) || !ok
	})
	then()
	b.liar.Inside().CannotReach("tcp", b.db.Addr("net", 80))
	if s := b.a.Status(); !b.closed(s) {
		t.Errorf("the liar is not in quarantine: %+v", s.Endpoints)
	}
	b.p.Spoil(nil)
	b.victim.Start()
	b.a.AwaitStatus("the victim is admitted, and the liar is not", func(s control.Status) bool { return b.open(s) && b.closed(s) })
	b.victim.Inside().CanReach("tcp", b.db.Addr("net", 80))
	b.liar.Inside().CannotReach("tcp", b.db.Addr("net", 80))
}

// TestBorrowedMAC has the liar get the other's place neither when that one ends and
// Docker is too busy to say so, nor keep it from its place afterwards.
func TestBorrowedMAC(t *testing.T) {
	t.Parallel()
	borrow := func(b *borrowing) { b.lie(b.takeMAC(), b.takeAddress()) }
	b := newBorrowing(t, "198.18.95.0/24", borrow)
	b.chance(t, func() {})

	// It was there first when the other comes.
	b.victim.Stop()
	b.a.AwaitStatus("the victim is gone", func(s control.Status) bool { _, ok := Endpoint(s, b.victim, "net"); return !ok })
	b.a.Process().Signal(syscall.SIGSTOP)
	b.liar.Restart()
	borrow(b)
	b.victim.Start()
	b.a.Process().Signal(syscall.SIGCONT)
	b.a.AwaitStatus("the victim is admitted, though both came unseen", b.open)
	b.victim.Inside().CanReach("tcp", b.db.Addr("net", 80))
}

// TestBorrowedMACHidden has the liar keep its link down, so that its MAC is never
// final, until the other's port is gone.
func TestBorrowedMACHidden(t *testing.T) {
	t.Parallel()
	b := newBorrowing(t, "198.18.96.0/24", func(b *borrowing) { b.lie("ip link set eth0 down", b.takeMAC()) })
	b.chance(t, func() { b.lie(b.takeAddress(), "ip link set eth0 up") })
}
