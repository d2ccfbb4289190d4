// Command demo shows netguard's main job on real containers: the same transfer
// before and after a label, in both directions, and what `netguard status` says
// of it. It runs a Docker engine in a network namespace of its own, and leaves
// nothing behind.
package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"netguard/agent/control"
	"netguard/integration/harness"
)

func main() { os.Exit(harness.Program("demo", show)) }

func show(tb harness.TB) {
	out := newStage()
	out.title("netguard: bandwidth limits for plain Docker, from labels")

	out.say("A Docker engine starts in a network namespace of its own; your own Docker is not touched.")
	e := harness.Start(tb)
	e.Network("backend")
	client := e.Run("client", harness.On("backend"))
	plain := e.Run("plain", harness.On("backend"))

	out.scene("1. Plain Docker: a container takes what it can get")
	out.run("docker run --network backend --name plain …")
	out.bar("receives", received(client, plain), 0)
	out.bar("sends", received(plain, client), 0)

	out.scene("2. With netguard: the same container, with two labels")
	a := e.Agent()
	out.run("netguard agent")
	labels := map[string]string{"netguard.ingress.rate": "50mbit", "netguard.egress.rate": "10mbit"}
	web := e.Run("web", harness.On("backend"), harness.Labels(labels))
	out.run("docker run --network backend --name web --label netguard.ingress.rate=50mbit --label netguard.egress.rate=10mbit …")
	a.AwaitStatus("web is limited", func(s control.Status) bool {
		ep, _ := harness.Endpoint(s, web, "backend")
		return ep.State == control.Admitted && ep.Egress.RateBPS != 0
	})
	out.bar("receives", received(client, web), 50e6)
	out.bar("sends", received(web, client), 10e6)

	out.scene("3. A saturated limit does not make others wait")
	out.say("While a container sends flat out at 10 Mbit/s, a small packet goes to its neighbour and back:")
	e.Output("sh", "-c", fmt.Sprintf("tc qdisc add dev %[1]s root handle 1: htb default 1 && tc class add dev %[1]s parent 1: classid 1:1 htb rate 10mbit", plain.Veth("backend")))
	out.trips("an HTB class by hand", loaded(client, plain))
	out.trips("netguard", loaded(web, client))

	out.scene("4. The agent is killed, and the limit holds")
	a.Kill()
	out.run("kill -9 $(pidof netguard)")
	out.bar("sends", received(web, client), 10e6)
	a.Start()
	out.say("The agent starts again and adopts what it finds; no packet is lost for it.")

	out.scene("5. A wrong label is not an open door: it is limited, and said")
	odd := e.Run("typo", harness.On("backend"), harness.Label("netguard.egress.rate", "10mbps"))
	out.run("docker run --network backend --name typo --label netguard.egress.rate=10mbps …")
	a.AwaitStatus("typo is limited", func(s control.Status) bool {
		ep, _ := harness.Endpoint(s, odd, "backend")
		return ep.State == control.Admitted && ep.Egress.RateBPS != 0
	})
	out.run("netguard status")
	out.print(a.CLI("status").Stdout)
	out.say("Everything of this demo is removed now.")
}

// received is what one container gets from another, in bits a second on the wire.
func received(from, to *harness.Container) float64 {
	return harness.Goodput{From: from.Inside(), To: to.Inside(), Address: to.IP("backend"), Seconds: 3, Omit: 1}.Measure().WireBitsPerSecond()
}

// loaded is how long small packets take while a TCP flow fills the same way.
func loaded(from, to *harness.Container) harness.Times {
	load := harness.Goodput{From: from.Inside(), To: to.Inside(), Address: to.IP("backend"), Seconds: 5}.Start()
	defer load.Wait()
	at := netip.AddrPortFrom(to.IP("backend"), 7).String()
	echo := to.Inside().Serve("udp", at)
	defer echo.Kill()
	return from.Inside().RoundTrips(at, 150, 20*time.Millisecond)
}

// stage writes for people: with colours on a terminal, plainly elsewhere.
type stage struct{ colours bool }

func newStage() stage {
	_, no := os.LookupEnv("NO_COLOR")
	return stage{colours: !no && term.IsTerminal(int(os.Stdout.Fd()))}
}

func (s stage) paint(code, text string) string {
	if !s.colours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s stage) title(text string) {
	fmt.Printf("%s\n%s\n\n", s.paint("1", text), strings.Repeat("=", len(text)))
}

func (s stage) scene(text string)  { fmt.Printf("\n%s\n", s.paint("1;36", text)) }
func (s stage) say(text string)    { fmt.Printf("  %s\n", text) }
func (s stage) run(command string) { fmt.Printf("  %s\n", s.paint("2", "$ "+command)) }

func (s stage) trips(whose string, t harness.Times) {
	code := "32"
	if t.P50 > 5 {
		code = "33"
	}
	fmt.Printf("  %s\n", s.paint(code, fmt.Sprintf("%-22s half of them took less than %7.2f ms, 99 of 100 less than %7.2f ms", whose, t.P50, t.P99)))
}

func (s stage) print(text string) {
	fmt.Println()
	for line := range strings.Lines(text) {
		fmt.Print("  ", line)
	}
	fmt.Println()
}

// bar shows a rate, and the limit that it should keep where there is one.
func (s stage) bar(what string, bps, limit float64) {
	// A mark for each doubling above a megabit: 10 Gbit/s are 13.
	marks := 1
	for r := 2e6; r < bps; r *= 2 {
		marks++
	}
	text := fmt.Sprintf("%-9s %12s  %s", what, human(bps), strings.Repeat("#", marks))
	if limit == 0 {
		fmt.Printf("  %s\n", s.paint("33", text))
		return
	}
	fmt.Printf("  %s\n", s.paint("32", fmt.Sprintf("%-42s %.1f %% of %s", text, 100*bps/limit, human(limit))))
}

func human(bps float64) string {
	if bps >= 1e9 {
		return fmt.Sprintf("%.2f Gbit/s", bps/1e9)
	}
	return fmt.Sprintf("%.2f Mbit/s", bps/1e6)
}
