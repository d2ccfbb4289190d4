package main

import (
	"fmt"
	"strconv"
	"time"
)

// arguments reads a verb's arguments from left to right. If one is missing or wrong,
// err says so and the later ones are zero.
type arguments struct {
	rest []string
	err  error
}

func (a *arguments) next() (string, bool) {
	if len(a.rest) == 0 || a.err != nil {
		return "", false
	}
	word := a.rest[0]
	a.rest = a.rest[1:]
	return word, true
}

func (a *arguments) text(name string) string {
	word, ok := a.next()
	if !ok && a.err == nil {
		a.err = fmt.Errorf("%w: %s is missing", errUsage, name)
	}
	return word
}

func (a *arguments) oneOf(name string, words ...string) string {
	got := a.text(name)
	for _, word := range words {
		if got == word {
			return got
		}
	}
	if a.err == nil {
		a.err = fmt.Errorf("%w: %s is %q, expected one of %q", errUsage, name, got, words)
	}
	return ""
}

func (a *arguments) duration(name string, otherwise ...time.Duration) time.Duration {
	if len(a.rest) == 0 && len(otherwise) > 0 {
		return otherwise[0]
	}
	d, err := time.ParseDuration(a.text(name))
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("%w: %s: %w", errUsage, name, err)
	}
	return d
}

func (a *arguments) number(name string, otherwise ...int) int {
	if len(a.rest) == 0 && len(otherwise) > 0 {
		return otherwise[0]
	}
	n, err := strconv.Atoi(a.text(name))
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("%w: %s: %w", errUsage, name, err)
	}
	return n
}

// done returns the first fault. Arguments that nobody read are a fault too.
func (a *arguments) done() error {
	if a.err == nil && len(a.rest) > 0 {
		a.err = fmt.Errorf("%w: %q are too many", errUsage, a.rest)
	}
	return a.err
}
