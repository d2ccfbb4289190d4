package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"netguard/integration/harness"
)

// stage prints for people: with colours on a terminal, without them elsewhere.
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

// verdict prints a result: good is as with netguard, otherwise as with plain Docker.
func (s stage) verdict(good bool, text string) {
	code := "33"
	if good {
		code = "32"
	}
	fmt.Printf("  %s\n", s.paint(code, text))
}

func (s stage) print(text string) {
	fmt.Println()
	for line := range strings.Lines(text) {
		fmt.Print("  ", line)
	}
	fmt.Println()
}

// bar shows a rate, and its limit if there is one.
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
