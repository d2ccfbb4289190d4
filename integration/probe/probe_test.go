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

func TestSYN(t *testing.T) {
	segment := func(port, flags byte) []byte {
		return []byte{0x9c, 0x40, 0, port, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0}
	}
	for name, c := range map[string]struct {
		segment []byte
		want    bool
	}{
		"first": {segment(80, 0x02), true}, "first, with ECN": {segment(80, 0xc2), true}, "answer": {segment(80, 0x12), false},
		"reset": {segment(80, 0x04), false}, "of another port": {segment(81, 0x02), false}, "cut short": {segment(80, 0x02)[:19], false},
	} {
		if got := isSYN(c.segment, 80); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
