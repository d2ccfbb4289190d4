// Command draw draws runs of BenchmarkScale:
//
//	go run ./integration/scale/draw OUT.svg RUN.json...
//
// Each run is a line in every panel, the earliest first. Dashed is what the agent is to stay
// below.
package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"netguard/integration/scale"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: draw OUT.svg RUN.json...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

func run(out string, files []string) error {
	var runs []scale.Run
	for _, file := range files {
		r, err := scale.Read(file)
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	picture, err := render(runs)
	if err != nil {
		return err
	}
	return os.WriteFile(out, picture, 0o644)
}

// panel is one of the picture's graphs.
type panel struct {
	title string
	of    func(scale.Size) float64
	aim   float64 // at 1,000 endpoints, 0 for none
	low   float64 // the least that the axis shows
}

var panels = [][]panel{
	{
		{"One start: agent's CPU, ms", func(s scale.Size) float64 { return s.StartCPU }, 20, 1},
		{"One start: messages to the kernel", func(s scale.Size) float64 { return s.Messages }, 0, 10},
		{"First packet through, p99, ms", func(s scale.Size) float64 { return s.AdmitP99 }, 5, 1},
		{"Idle: agent's CPU, % of a core", func(s scale.Size) float64 { return s.Idle }, 0.3, 0.1},
	},
	{
		{"netguard status, ms", func(s scale.Size) float64 { return s.Status }, 100, 10},
		{"Restart until in sync, ms", func(s scale.Size) float64 { return s.Restart }, 2000, 100},
		{"Edit of one policy, ms", func(s scale.Size) float64 { return s.Edit }, 100, 10},
		{"Memory, MB", func(s scale.Size) float64 { return s.RSS }, 80, 10},
	},
}

// inks tell runs apart, also without colours: the first is the lightest.
var inks = []color.Color{
	color.RGBA{R: 0xd9, G: 0x8f, B: 0x3d, A: 0xff},
	color.RGBA{R: 0x1f, G: 0x5a, B: 0xa8, A: 0xff},
	color.RGBA{R: 0x33, G: 0x33, B: 0x33, A: 0xff},
}

const width, height = 44 * vg.Centimeter, 21 * vg.Centimeter

func render(runs []scale.Run) ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	canvas := vgsvg.NewWith(vgsvg.UseWH(width, height))
	page := draw.New(canvas)
	page.FillPolygon(color.White, []vg.Point{page.Min, {X: page.Max.X, Y: page.Min.Y}, page.Max, {X: page.Min.X, Y: page.Max.Y}})
	plots := make([][]*plot.Plot, len(panels))
	for i, row := range panels {
		for j, what := range row {
			p, err := what.plot(runs, i+j == 0)
			if err != nil {
				return nil, err
			}
			plots[i] = append(plots[i], p)
		}
	}
	gap := vg.Points(14)
	page.FillText(text.Style{
		Color: color.Black, Font: font.From(plot.DefaultFont, 18), XAlign: text.XLeft, YAlign: text.YTop, Handler: plot.DefaultTextHandler,
	}, vg.Point{X: page.Min.X + gap, Y: page.Max.Y - gap}, "What the agent costs, by the number of endpoints on the host")
	tiles := draw.Tiles{Rows: len(panels), Cols: len(panels[0]), PadX: gap, PadY: gap, PadTop: 4 * gap, PadBottom: gap, PadLeft: gap, PadRight: gap}
	for i, row := range plot.Align(plots, tiles, page) {
		for j, c := range row {
			plots[i][j].Draw(c)
		}
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// plot makes the graph. Only one of a picture tells which run is which.
func (what panel) plot(runs []scale.Run, legend bool) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text = what.title, "endpoints"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = decades{}, decades{}
	p.Add(lattice())
	highest := max(what.low, what.aim)
	sizes := map[float64]bool{}
	for i, r := range runs {
		for _, kind := range []string{"stub", "docker"} {
			var points plotter.XYs
			for _, s := range r.Sizes {
				if v := what.of(s); s.Kind == kind && v > 0 {
					points = append(points, plotter.XY{X: float64(s.Endpoints), Y: max(v, what.low)})
					highest = max(highest, v)
					sizes[float64(s.Endpoints)] = true
				}
			}
			if len(points) == 0 {
				continue
			}
			line, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what.title, err)
			}
			line.Color, dots.Color = inks[i%len(inks)], inks[i%len(inks)]
			line.Width, dots.Radius, dots.Shape = vg.Points(2), vg.Points(3), draw.CircleGlyph{}
			label := r.Label
			if kind == "docker" {
				line.Dashes, dots.Shape = []vg.Length{vg.Points(2), vg.Points(3)}, draw.SquareGlyph{}
				label += ", real containers"
			}
			p.Add(line, dots)
			if legend {
				p.Legend.Add(label, line, dots)
			}
		}
	}
	p.X.Min, p.X.Max = 8, 6500
	p.Y.Min, p.Y.Max = what.low, 1.5*highest
	if legend {
		p.Y.Max *= 30 // room for it
	}
	if what.aim > 0 {
		aim, err := plotter.NewLine(plotter.XYs{{X: p.X.Min, Y: what.aim}, {X: p.X.Max, Y: what.aim}})
		if err != nil {
			return nil, err
		}
		aim.Color, aim.Dashes = color.RGBA{R: 0x2e, G: 0x8b, B: 0x57, A: 0xff}, []vg.Length{vg.Points(6), vg.Points(4)}
		p.Add(aim)
		if legend {
			p.Legend.Add("the aim at 1,000", aim)
		}
	}
	p.Legend.Top, p.Legend.Left = true, true
	return p, nil
}

func lattice() *plotter.Grid {
	g := plotter.NewGrid()
	pale := color.Gray{Y: 0xe4}
	g.Vertical.Color, g.Horizontal.Color = pale, pale
	return g
}

// decades marks 1, 10, 100; 3 of each where few of them fit.
type decades struct{}

// Ticks implements plot.Ticker.
func (decades) Ticks(low, high float64) []plot.Tick {
	var all []plot.Tick
	for decade := 1e-3; decade <= high; decade *= 10 {
		for _, n := range []float64{1, 3} {
			v := n * decade
			if v < low*.999 || v > high {
				continue
			}
			t := plot.Tick{Value: v}
			if n == 1 || high/low < 200 {
				t.Label = strconv.FormatFloat(v, 'g', 6, 64)
			}
			all = append(all, t)
		}
	}
	return all
}
