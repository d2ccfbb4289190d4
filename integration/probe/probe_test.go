package main

import (
	"encoding/hex"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSummary(t *testing.T) {
	var all []float64
	for i := 100; i >= 1; i-- {
		all = append(all, float64(i))
	}
	got := summary(120, all)
	want := times{Sent: 120, Received: 100, Min: 1, P50: 51, P90: 91, P99: 100, Max: 100}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := summary(3, nil); got != (times{Sent: 3}) {
		t.Errorf("nothing came back: %+v", got)
	}
}

func TestFilter(t *testing.T) {
	frame, err := hex.DecodeString("ffffffffffff" + "02420a070002" + "0806" + "0001080006040001")
	if err != nil {
		t.Fatal(err)
	}
	for filter, want := range map[string]bool{
		"any":                                  true,
		"ethertype=0806":                       true,
		"ethertype=0800":                       false,
		"src=02:42:0a:07:00:02,ethertype=0806": true,
		"src=02:42:0a:07:00:02,ethertype=0800": false,
		"dst=ffffffffffff":                     true,
		"contains=08000604":                    true,
		"contains=0806,contains=dead":          false,
	} {
		matches, err := parseFilter(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := matches(frame); got != want {
			t.Errorf("%s says %v", filter, got)
		}
		if err == nil {
			matches(nil) // one that is cut short is no crash
		}
	}
	for _, filter := range []string{"", "ethertype", "ethertype=", "ethertype=xy", "vlan=01"} {
		if _, err := parseFilter(filter); !errors.Is(err, errUsage) {
			t.Errorf("%q should be wrong usage: %v", filter, err)
		}
	}
}

func TestKind(t *testing.T) {
	for err, want := range map[error]string{
		unix.ECONNREFUSED: "refused", unix.EHOSTUNREACH: "unreachable", unix.ETIMEDOUT: "timeout", unix.ECONNRESET: "error",
	} {
		if got := kind(err); got != want {
			t.Errorf("%v is %s, not %s", err, got, want)
		}
	}
}
