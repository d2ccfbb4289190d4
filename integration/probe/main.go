// Command probe is what runs in the containers of the integration tests: it
// serves, connects, pings, floods and listens, one verb for each. It is static
// and needs nothing else in its image.
//
// A verb prints its result to standard output, as JSON if a test reads it. Exit code 1
// means that the attempt failed, 2 wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// verbs take their arguments and run until they are done or the context ends
// (SIGTERM, SIGINT).
var verbs = map[string]struct {
	usage string
	run   func(ctx context.Context, args []string) error
}{
	"pause":   {"pause", pause},
	"serve":   {"serve (tcp|udp ADDR...)...", serve},
	"connect": {"connect tcp|udp ADDR [TIMEOUT]", connect},
	"chat":    {"chat tcp|udp ADDR [INTERVAL [TIMEOUT]]", chat},
	"ping":    {"ping ADDR [COUNT [TIMEOUT]]", ping},
	"blast":   {"blast tcp|udp ADDR DURATION [SIZE]", blast},
	"volley":  {"volley DURATION [syn/]ADDR...", volley},
	"sink":    {"sink tcp|udp|syn ADDR [INTERVAL [QUIET]]", sink},
	"rtt":     {"rtt ADDR COUNT INTERVAL [LAST]", rtt},
	"frame":   {"frame send|flood|listen IFACE ...", frame},
}

var (
	// errUsage: the arguments are wrong.
	errUsage = errors.New("wrong usage")
	// errNo: the attempt failed, and the verb has printed that.
	errNo = errors.New("no")
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(args) == 0 {
		return usage()
	}
	verb, ok := verbs[args[0]]
	if !ok {
		return usage()
	}
	switch err := verb.run(ctx, args[1:]); {
	case err == nil:
		return 0
	case errors.Is(err, errNo):
		return 1
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "probe:", err, "-- usage: probe", verb.usage)
		return 2
	default:
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
}

func usage() int {
	var lines []string
	for _, v := range verbs {
		lines = append(lines, v.usage)
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Fprintln(os.Stderr, "probe", line)
	}
	return 2
}

// print writes one line of JSON.
func print(value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // only our own types come here
	}
	os.Stdout.Write(append(raw, '\n'))
}
