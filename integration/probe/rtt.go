package main

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"time"
)

// times sums up round trips, in milliseconds.
type times struct {
	Sent     int     `json:"sent"`
	Received int     `json:"received"`
	Min      float64 `json:"min_ms"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
}

// rtt sends small UDP packets to an echo server, one every interval whether or
// not the last one came back, and prints the round trips' percentiles. For the
// last answers it waits until all are there, or LAST (2s) is over.
func rtt(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	addr, count, interval := a.text("address"), a.number("count"), a.duration("interval")
	last := a.duration("last", 2*time.Second)
	if err := a.done(); err != nil {
		return err
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	begin := time.Now()
	trips := make(chan time.Duration, count)
	go func() {
		defer close(trips)
		seen := make([]bool, count)
		buf := make([]byte, 64)
		for left := count; left > 0; {
			n, err := conn.Read(buf)
			if err != nil {
				if ctx.Err() != nil || kind(err) != "refused" {
					return
				}
				continue
			}
			seq := binary.BigEndian.Uint32(buf)
			if n != 16 || int(seq) >= count || seen[seq] {
				continue
			}
			seen[seq] = true
			left--
			trips <- time.Since(begin) - time.Duration(binary.BigEndian.Uint64(buf[8:]))
		}
	}()
	sent := 0
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ; sent < count && ctx.Err() == nil; sent++ {
		var packet [16]byte
		binary.BigEndian.PutUint32(packet[:], uint32(sent))
		binary.BigEndian.PutUint64(packet[8:], uint64(time.Since(begin)))
		conn.Write(packet[:]) // one that is refused counts as lost
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	conn.SetReadDeadline(time.Now().Add(last))
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })()
	var all []float64
	for trip := range trips {
		all = append(all, ms(trip))
	}
	print(summary(sent, all))
	if len(all) == 0 {
		return errNo
	}
	return nil
}

func summary(sent int, all []float64) times {
	t := times{Sent: sent, Received: len(all)}
	if len(all) == 0 {
		return t
	}
	slices.Sort(all)
	at := func(share float64) float64 { return all[min(int(share*float64(len(all))), len(all)-1)] }
	t.Min, t.P50, t.P90, t.P99, t.Max = all[0], at(.5), at(.9), at(.99), all[len(all)-1]
	return t
}
