package harness_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"netguard/integration/harness"
)

func TestEngine(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.WithOutside(), harness.WithIPv6())
	e.Network("backend", harness.Subnet("10.7.0.0/24"), harness.Subnet("fd00:7::/64"))
	db := e.Run("db", harness.On("backend"), harness.Doing("serve", "tcp", ":5432", "udp", ":53"), harness.Publish("8080:5432"))
	db.AwaitLog("serving")
	web := e.Run("web", harness.On("backend", "10.7.0.9"))

	t.Run("containers reach each other", func(t *testing.T) {
		in := web.For(t).Inside()
		in.CanReach("tcp", db.Addr("backend", 5432))
		in.CanReach("udp", db.Addr("backend", 53))
		in.CanReach("tcp", db.Addr6("backend", 5432))
		for _, ip := range []netip.Addr{db.IP("backend"), db.IP6("backend")} {
			if r := in.Probe("ping", ip.String(), "3"); !r.OK() {
				t.Error(r)
			}
		}
	})
	t.Run("what keeps them apart is told", func(t *testing.T) {
		e := e.For(t)
		in := web.For(t).Inside()
		if r := in.Connect("tcp", db.Addr("backend", 5433), "1s"); r.Result != "refused" {
			t.Errorf("a closed port: %s", r)
		}
		if r := in.Connect("udp", db.Addr("backend", 5433), "1s"); r.Result != "refused" {
			t.Errorf("a closed UDP port: %s", r)
		}
		e.Network("apart")
		stranger := e.Run("stranger", harness.On("apart")).Inside()
		if r := stranger.Connect("tcp", db.Addr("backend", 5432), "300ms"); r.Result != "timeout" {
			t.Errorf("Docker drops between networks: %s", r)
		}
		stranger.CannotReach("udp", db.Addr("backend", 53))
	})
	t.Run("addresses are those asked for", func(t *testing.T) {
		if ip := web.IP("backend"); ip.String() != "10.7.0.9" {
			t.Errorf("the address is %s", ip)
		}
		c := e.For(t).Run("chosen", harness.On("backend", "10.7.0.77", "fd00:7::77"), harness.WithMAC("02:42:0a:07:00:4d"))
		if ip := c.IP6("backend"); ip.String() != "fd00:7::77" {
			t.Errorf("the IPv6 address is %s", ip)
		}
		if mac := c.MAC("backend"); mac != "02:42:0a:07:00:4d" {
			t.Errorf("the MAC address is %s", mac)
		}
	})
	t.Run("docker exec tells output and exit code", func(t *testing.T) {
		web := web.For(t)
		if r := web.Exec("/probe", "connect", "tcp", db.Addr("backend", 5432)); !r.OK() || !strings.Contains(r.Stdout, "answered") {
			t.Error(r)
		}
		if r := web.Exec("/probe", "connect", "tcp", db.Addr("backend", 1)); r.Code != 1 {
			t.Error(r)
		}
	})
	t.Run("the outside reaches a published port", func(t *testing.T) {
		e := e.For(t)
		e.Outside.CanReach("tcp", harness.HostIPv4.String()+":8080")
		db.For(t).AwaitLog("from " + harness.OutsideIPv4.String())
		e.Outside.AddAddr("203.0.113.7")
		e.Outside.CanReach("tcp", harness.HostIPv4.String()+":8080")
	})
	t.Run("containers reach the outside", func(t *testing.T) {
		e := e.For(t)
		server := e.Outside.Serve("tcp", ":80", "udp", ":53")
		in := web.For(t).Inside()
		in.CanReach("tcp", netip.AddrPortFrom(harness.OutsideIPv4, 80).String())
		server.AwaitLine("from " + harness.HostIPv4.String()) // masqueraded
		in.CanReach("tcp", netip.AddrPortFrom(harness.OutsideIPv6, 80).String())
		in.CanReach("tcp", "203.0.113.7:80")
	})
	t.Run("networks come and go with a container", func(t *testing.T) {
		e := e.For(t)
		e.Network("second", harness.Subnet("10.8.0.0/24"), harness.BridgeName("second0"))
		c := e.Run("guest", harness.On("backend"), harness.On("second", "10.8.0.8"))
		if name := c.Interface("second"); name != "eth1" {
			t.Errorf("the second interface is %s", name)
		}
		ports := e.Output("ip", "-o", "link", "show", "master", "second0")
		if veth := c.Veth("second"); !strings.Contains(ports, veth) {
			t.Errorf("%s should be a port of the bridge: %s", veth, ports)
		}
		c.Disconnect("second")
		c.Connect("second", "10.8.0.9")
		if ip := c.IP("second"); ip.String() != "10.8.0.9" {
			t.Errorf("the address is %s", ip)
		}
	})
	t.Run("containers share a namespace", func(t *testing.T) {
		e := e.For(t)
		e.Run("sidecar", harness.Sharing(db), harness.Doing("serve", "tcp", ":81")).AwaitLog("serving")
		web.For(t).Inside().CanReach("tcp", db.Addr("backend", 81))
	})
	t.Run("a container's life is told", func(t *testing.T) {
		c := e.For(t).Create("mortal")
		c.Start()
		c.Pause()
		c.Unpause()
		c.Rename("renamed")
		if name := c.Inspect().Name; name != "/renamed" {
			t.Errorf("the name is %s", name)
		}
		c.Restart()
		c.Stop()
		if code := c.Wait(); code != 0 {
			t.Errorf("stopped, it ends with %d", code)
		}
		c.Start()
		c.Kill("SIGKILL")
		if code := c.Wait(); code != 137 {
			t.Errorf("killed, it ends with %d", code)
		}
	})
}

func TestEngines(t *testing.T) {
	t.Parallel()
	t.Run("live side by side with the same names and addresses", func(t *testing.T) {
		for _, e := range []*harness.Engine{harness.Start(t), harness.Start(t, harness.WithLegacyIptables())} {
			e.Network("net", harness.Subnet("10.7.0.0/24"))
			e.Run("server", harness.On("net", "10.7.0.2"), harness.Doing("serve", "tcp", ":80"), harness.Publish("8080:80")).AwaitLog("serving")
			e.Run("client", harness.On("net")).Inside().CanReach("tcp", "10.7.0.2:80")
			e.CanReach("tcp", "127.0.0.1:8080") // the host's own, by docker-proxy
		}
	})
	t.Run("leave br_netfilter off, or on, as asked", func(t *testing.T) {
		for want, options := range map[string][]harness.Option{"0": nil, "1": {harness.WithBridgeNetfilter()}} {
			e := harness.Start(t, options...)
			var got string
			err := e.Do(func() error {
				raw, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
				got = strings.TrimSpace(string(raw))
				return err
			})
			if err != nil || got != want {
				t.Errorf("bridge-nf-call-iptables is %s, not %s: %v", got, want, err)
			}
		}
	})
	t.Run("use the iptables asked for", func(t *testing.T) {
		for want, options := range map[string][]harness.Option{"nf_tables": nil, "legacy": {harness.WithLegacyIptables()}} {
			e := harness.Start(t, options...)
			if got := e.Output("iptables", "--version"); !strings.Contains(got, want) {
				t.Errorf("iptables is %s, not %s", got, want)
			}
			if rules := e.Output("iptables", "-S", "FORWARD"); !strings.Contains(rules, "DOCKER-USER") {
				t.Errorf("dockerd used another iptables:\n%s", rules)
			}
		}
	})
}

func TestDaemon(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Flags("--live-restore"), harness.DaemonConfig(`{"labels": ["a=b"]}`))
	c := e.Run("survivor", harness.Doing("serve", "tcp", ":80"))
	c.AwaitLog("serving")
	pid := c.PID()
	for name, again := range map[string]func(){
		"restarts": e.RestartDaemon,
		"crashes":  func() { e.KillDaemon(); e.StartDaemon() },
		"stops":    func() { e.StopDaemon(); e.StartDaemon() },
	} {
		t.Run(name+" and keeps its containers", func(t *testing.T) {
			again()
			if now := c.For(t).PID(); now != pid {
				t.Errorf("the container's program was process %d, and is %d", pid, now)
			}
			e.For(t).CanReach("tcp", c.Addr("bridge", 80))
		})
	}
	t.Run("reads its configuration", func(t *testing.T) {
		info, err := e.Client.Info(t.Context())
		if err != nil || len(info.Labels) != 1 || info.Labels[0] != "a=b" {
			t.Errorf("the labels are %v: %v", info.Labels, err)
		}
	})
}

func TestFrames(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Network("net")
	from, to := e.Run("from", harness.On("net")), e.Run("to", harness.On("net"))
	mac := func(c *harness.Container) string { return strings.ReplaceAll(c.MAC("net"), ":", "") }
	for name, middle := range map[string]string{
		"plain":                "88b5",
		"with a priority tag":  "8100e000" + "88b5",
		"with two VLAN tags":   "88a80001" + "81000002" + "88b5",
		"with an outer S-tag":  "88a80fff" + "0800",
		"that are IPv4 inside": "0800",
	} {
		t.Run("arrive as they were sent "+name, func(t *testing.T) {
			frame, err := hex.DecodeString(mac(to) + mac(from) + middle + strings.Repeat("ab", 50))
			if err != nil {
				t.Fatal(err)
			}
			heard := to.For(t).Inside().Hear("eth0", "contains=abababababababab")
			from.For(t).Inside().SendFrame("eth0", frame, 3)
			if got := heard.Await(); !bytes.Equal(got, frame) {
				t.Errorf("sent  %x\nheard %x", frame, got)
			}
			if n := len(heard.Stop()); n != 3 {
				t.Errorf("heard %d frames, not 3", n)
			}
		})
	}
	t.Run("flood the bridge with new addresses", func(t *testing.T) {
		frame, err := hex.DecodeString("ffffffffffff" + mac(from) + "88b5" + strings.Repeat("00", 46))
		if err != nil {
			t.Fatal(err)
		}
		if n := from.For(t).Inside().FloodFrames("eth0", frame, 50*time.Millisecond); n < 100 {
			t.Errorf("only %d frames in 50 ms", n)
		}
	})
}

func TestNetns(t *testing.T) {
	e := harness.Start(t)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a function sees the engine's host, and nothing after it does", func(t *testing.T) {
		for range 50 {
			var inside string
			if err := e.Do(func() (err error) {
				inside, err = os.Readlink("/proc/thread-self/ns/net")
				return err
			}); err != nil || inside == own {
				t.Fatalf("it ran in %s, this process's is %s: %v", inside, own, err)
			}
		}
		for range 50 {
			done := make(chan string)
			go func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				now, _ := os.Readlink("/proc/thread-self/ns/net")
				done <- now
			}()
			if now := <-done; now != own {
				t.Fatalf("a thread stayed in %s", now)
			}
		}
	})
	t.Run("a function that ends its goroutine is an error", func(t *testing.T) {
		if err := e.Do(func() error { runtime.Goexit(); return nil }); err == nil {
			t.Error("it should be an error")
		}
	})
}
