package integration

import (
	"syscall"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestNewMAC replaces a container by another with the same addresses and another MAC,
// as Docker 28 and later do at each start, while a neighbour and the host remember the old
// one. What the new one announces itself is refused: it comes while no agent runs, or
// before the agent looks. Without netguard's own announcement the neighbour goes on
// sending to the old MAC for 17 to 38 seconds.
func TestNewMAC(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6())
	agent := e.Agent(Config("networks: {unguarded: [bare]}\n"))
	for name, net := range map[string]string{"net": "198.18.95.", "bare": "198.18.96."} {
		six := map[string]string{"net": "fd00:95::", "bare": "fd00:96::"}[name]
		e.Network(name, Subnet(net+"0/24"), Subnet(six+"/64"))
		t.Run(name, func(t *testing.T) {
			e, a := e.For(t), agent.For(t)
			neighbour := e.Run("neighbour-"+name, On(name))
			serve := func(mac string) *Container {
				return e.Create("server-"+name, On(name, net+"10", six+"10"), WithMAC(mac), Doing("serve", "tcp", ":80"))
			}
			is := serve("02:42:00:00:00:a0")
			is.Start()
			a.AwaitStatus("both are admitted", AllAdmitted)
			meanwhile := map[string]func(func()){
				"without an agent": func(f func()) { agent.Kill(); f(); agent.Start() },
				"before the agent looks": func(f func()) {
					a.Process().Signal(syscall.SIGSTOP)
					defer a.Process().Signal(syscall.SIGCONT)
					f()
				},
			}
			for when, mac := range map[string]string{"without an agent": "02:42:00:00:00:a1", "before the agent looks": "02:42:00:00:00:a2"} {
				old := is.MAC(name)
				believe := func(where Netns, device string) {
					for _, addr := range []string{net + "10", six + "10"} {
						where.Output("ip", "neigh", "replace", addr, "lladdr", old, "dev", device, "nud", "reachable")
					}
				}
				meanwhile[when](func() {
					is.Remove()
					is = serve(mac)
					is.Start()
					believe(neighbour.Inside(), neighbour.Interface(name))
					if name == "bare" { // elsewhere the host's entry is netguard's
						believe(e.Netns, e.ExistingNetwork(name).Bridge)
					}
				})
				a.AwaitStatus("the new one is admitted", func(s control.Status) bool {
					ep, ok := Endpoint(s, is, name)
					return ok && Whole(ep) && ep.MAC == mac && s.InSync
				})
				for _, from := range []Netns{neighbour.Inside(), e.Netns} {
					for _, to := range []string{is.Addr(name, 80), is.Addr6(name, 80)} {
						if r := soon(from, to); !r.Answered() {
							t.Errorf("%s, to %s: %s", when, to, r)
						}
					}
				}
			}
		})
	}
}

// soon tries to connect for five seconds: a server may not listen yet. Who remembers
// another MAC tries in vain for longer.
func soon(from Netns, to string) Reach {
	var r Reach
	for until := time.Now().Add(5 * time.Second); !r.Answered() && time.Now().Before(until); {
		r = from.Connect("tcp", to, "5s")
	}
	return r
}
