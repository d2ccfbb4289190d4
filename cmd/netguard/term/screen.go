// Package term puts text on a terminal: tables, colours, line breaks, and numbers with units.
// A table makes the text of its cells harmless.
package term

import (
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// The size that counts where there is no terminal to ask.
const (
	UsualWidth = 100
	LeastWidth = 80 // narrower terminals wrap
)

// Screen is where output goes.
type Screen struct {
	io.Writer
	Terminal bool // it can be drawn over
	Colour   bool
	Size     func() (width, height int) // nil without a terminal
}

// ScreenOf finds out what w is.
func ScreenOf(w io.Writer) Screen {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Screen{Writer: w}
	}
	dumb := os.Getenv("TERM") == "dumb"
	return Screen{
		Writer: w, Terminal: !dumb,
		Colour: !dumb && os.Getenv("NO_COLOR") == "",
		Size: func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width == 0 || height == 0 { // a serial line has no size
				return UsualWidth, 24
			}
			return width, height
		},
	}
}

// View is how a text is shown.
type View struct {
	Wide   bool
	Width  int // in columns; wide does not keep to it
	Colour bool
	Now    time.Time // whose zone is the reader's
}

// View is how a text is shown on the screen.
func (s Screen) View() View { return View{Width: s.Width(), Colour: s.Colour} }

// Width is how many columns a text may take.
func (s Screen) Width() int {
	if s.Size == nil {
		return UsualWidth
	}
	width, _ := s.Size()
	return max(width, LeastWidth)
}
