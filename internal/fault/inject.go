//go:build faultinject

package fault

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Variables of the environment that say what goes wrong, and when.
const (
	// Plan says what happens at the N-th write of the process, counted from 1. kill:N kills the
	// process instead of the write, kill-after:N kills it after the write. error:N makes no
	// write from the N-th on. error-after:N makes these writes, and reports them as failed.
	// kill:WHAT:N counts only writes with the name WHAT.
	Plan = "NETGUARD_FAULT"
	// While names a file: errors last as long as the file exists.
	While = "NETGUARD_FAULT_WHILE"
	// Log is a file that gets a line for each write.
	Log = "NETGUARD_FAULT_LOG"
)

// ErrInjected is the error of a write that was to fail.
var ErrInjected = errors.New("injected fault")

type plan struct {
	how   string
	what  string // "" for all
	at    int
	while string
	log   *os.File

	mu       sync.Mutex
	count    int // of all
	matching int // of those that count
}

var current = sync.OnceValue(func() *plan {
	p, err := parse(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return p
})

func parse(getenv func(string) string) (*plan, error) {
	p := &plan{while: getenv(While)}
	if path := getenv(Log); path != "" {
		var err error
		if p.log, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("open log of writes: %w", err)
		}
	}
	text := getenv(Plan)
	if text == "" {
		return p, nil
	}
	how, number, _ := strings.Cut(text, ":")
	if i := strings.LastIndex(number, ":"); i >= 0 {
		p.what, number = number[:i], number[i+1:]
	}
	at, err := strconv.Atoi(number)
	switch how {
	case "kill", "kill-after", "error", "error-after":
	default:
		err = errors.New("neither kill, kill-after, error nor error-after")
	}
	if err != nil || at < 1 {
		return nil, fmt.Errorf("read %s=%q: %w", Plan, text, errors.Join(err, errors.New("want kill:N")))
	}
	p.how, p.at = how, at
	return p, nil
}

// Write makes a write, or what is to happen instead.
func Write(what string, write func() error) error { return current().write(what, write, die) }

// Begin is for a write that goes on while other work is done. If it gives an error, do not
// write. Else call made with the result of the write: made gives the result that counts.
func Begin(what string) (made func(error) error, err error) { return current().begin(what, die) }

func (p *plan) write(what string, write func() error, die func()) error {
	made, err := p.begin(what, die)
	if err != nil {
		return err
	}
	return made(write())
}

func (p *plan) begin(what string, die func()) (made func(error) error, err error) {
	n := p.next(what)
	if n > 0 && n == p.at && p.how == "kill" {
		die()
	}
	failing := p.at > 0 && n >= p.at && p.holds()
	if failing && p.how == "error" {
		return nil, fmt.Errorf("%s: %w", what, ErrInjected)
	}
	return func(err error) error {
		if n > 0 && n == p.at && p.how == "kill-after" {
			die()
		}
		if failing && p.how == "error-after" {
			return errors.Join(err, fmt.Errorf("%s: %w", what, ErrInjected))
		}
		return err
	}, nil
}

// next counts a write, and gives its number among those that count, 0 for others.
func (p *plan) next(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	if p.log != nil {
		fmt.Fprintf(p.log, "%d %s\n", p.count, what)
	}
	if p.what != "" && p.what != what {
		return 0
	}
	p.matching++
	return p.matching
}

// holds tells whether errors go on.
func (p *plan) holds() bool {
	if p.while == "" {
		return true
	}
	_, err := os.Stat(p.while)
	return err == nil
}

// die ends the process as kill -9 does.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
