package harness_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"netguard/integration/harness"
)

func TestMeasure(t *testing.T) {
	e := harness.Start(t)
	e.Network("net", harness.Subnet("10.7.0.0/24"), harness.Subnet("fd00:7::/64"))
	from, to := e.Run("from", harness.On("net")), e.Run("to", harness.On("net"))
	const limit = 20e6
	e.Output("tc", "qdisc", "add", "dev", to.Veth("net"), "root", "tbf", "rate", "20mbit", "burst", "64kb", "limit", "300kb")

	near := func(t *testing.T, got float64) {
		t.Helper()
		if got < .8*limit || got > 1.05*limit {
			t.Errorf("measured %.2f Mbit/s of 20", got/1e6)
		}
	}
	goodput := func(t *testing.T) harness.Goodput {
		return harness.Goodput{From: from.For(t).Inside(), To: to.For(t).Inside(), Address: to.IP("net"), Seconds: 2, Omit: 1}
	}
	t.Run("goodput over IPv4 and IPv6 is the limit's", func(t *testing.T) {
		g := goodput(t)
		near(t, g.Measure().WireBitsPerSecond())
		g.Address = to.IP6("net")
		near(t, g.Measure().WireBitsPerSecond())
	})
	t.Run("goodput of UDP tells the loss", func(t *testing.T) {
		g := goodput(t)
		g.UDP, g.Offer = true, 10e6
		f := g.Measure()
		if f.BitsPerSecond < 9e6 || f.BitsPerSecond > 11e6 || f.LostPercent > 1 {
			t.Errorf("offered 10 Mbit/s: %s", f)
		}
	})
	t.Run("the other direction is free", func(t *testing.T) {
		g := goodput(t)
		g.Reverse = true
		if f := g.Measure(); f.BitsPerSecond < 10*limit {
			t.Errorf("it should be far above 20 Mbit/s: %s", f)
		}
		if f := e.For(t).UnshapedRate("net"); f.BitsPerSecond < 10*limit {
			t.Errorf("two containers without a limit: %s", f)
		}
	})
	t.Run("round trips grow under load", func(t *testing.T) {
		to.For(t).Inside().Serve("udp", ":7")
		in := from.For(t).Inside()
		idle := in.RoundTrips(to.Addr("net", 7), 50, 2*time.Millisecond)
		load := goodput(t).Start()
		busy := in.RoundTrips(to.Addr("net", 7), 100, 10*time.Millisecond)
		load.Wait()
		if idle.Received != 50 || busy.P50 < 5*idle.P50 {
			t.Errorf("idle: %s\nunder load: %s", idle, busy)
		}
	})
	t.Run("what a blast sends, a sink receives", func(t *testing.T) {
		for _, protocol := range []string{"tcp", "udp"} {
			sink := to.For(t).Inside().SpawnProbe("sink", protocol, ":9", "50ms", "1s")
			sink.AwaitLine("sinking")
			var sent, got struct {
				Bytes int64
				GapMS float64 `json:"gap_ms"`
				Total bool
			}
			if err := from.For(t).Inside().Probe("blast", protocol, to.Addr("net", 9), "500ms").Into(&sent); err != nil {
				t.Fatal(err)
			}
			r := sink.Wait()
			if err := r.Into(&got); err != nil {
				t.Fatal(err)
			}
			if !got.Total || got.Bytes < 900e3 || got.Bytes > sent.Bytes || got.GapMS == 0 {
				t.Errorf("%s: sent %+v, received %+v", protocol, sent, got)
			}
			var lines int
			for line := range strings.Lines(r.Stdout) {
				var part struct{ Bytes int64 }
				if err := json.Unmarshal([]byte(line), &part); err == nil && part.Bytes > 0 {
					lines++
				}
			}
			if lines < 8 { // 500 ms are 10 intervals, and the total
				t.Errorf("%s: only %d lines:\n%s", protocol, lines, r.Stdout)
			}
		}
	})
	t.Run("a chat ends when its partner is cut off", func(t *testing.T) {
		e := e.For(t)
		partner := e.Run("partner", harness.On("net"), harness.Doing("serve", "tcp", ":80"))
		partner.AwaitLog("serving")
		chat := from.For(t).Inside().SpawnProbe("chat", "tcp", partner.Addr("net", 80), "20ms", "500ms")
		chat.AwaitLine(`"n":3,`)
		partner.Pause()
		if r := chat.Wait(); r.Code != 1 || !strings.Contains(r.Stdout, "timeout") {
			t.Error(r)
		}
		partner.Unpause()
	})
}
