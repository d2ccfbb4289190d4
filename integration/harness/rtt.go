package harness

import (
	"fmt"
	"strconv"
	"time"
)

// Times sums up the round trips of small UDP packets, in milliseconds.
type Times struct {
	Sent     int     `json:"sent"`
	Received int     `json:"received"`
	Min      float64 `json:"min_ms"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
}

func (t Times) String() string {
	return fmt.Sprintf("%d of %d came back, p50 %.3f ms, p90 %.3f, p99 %.3f, max %.3f",
		t.Received, t.Sent, t.P50, t.P90, t.P99, t.Max)
}

// RoundTrips sends small UDP packets to an echo server (see [Netns.Serve]), one
// every interval, and sums up how long the answers took.
func (n Netns) RoundTrips(address string, count int, interval time.Duration) Times {
	n.tb.Helper()
	// With a long queue the last answers take seconds.
	r := n.Probe("rtt", address, strconv.Itoa(count), interval.String(), "10s")
	var t Times
	if err := r.Into(&t); err != nil {
		n.tb.Fatalf("%v", err)
	}
	return t
}
