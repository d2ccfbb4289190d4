package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// The size that counts where there is no terminal to ask.
const (
	usualWidth = 100
	leastWidth = 80 // narrower terminals wrap
)

// screen is where output goes.
type screen struct {
	io.Writer
	terminal bool // it can be drawn over
	colour   bool
	size     func() (width, height int) // nil without a terminal
}

func screenOf(w io.Writer) screen {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return screen{Writer: w}
	}
	dumb := os.Getenv("TERM") == "dumb"
	return screen{
		Writer: w, terminal: !dumb,
		colour: !dumb && os.Getenv("NO_COLOR") == "",
		size: func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width == 0 || height == 0 { // a serial line has no size
				return usualWidth, 24
			}
			return width, height
		},
	}
}

// view is how a text is shown there.
func (s screen) view() view { return view{width: s.width(), colour: s.colour} }

func (s screen) width() int {
	if s.size == nil {
		return usualWidth
	}
	width, _ := s.size()
	return max(width, leastWidth)
}
