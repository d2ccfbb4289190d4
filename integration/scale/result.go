// Package scale measures the agent's cost of one more endpoint, by the number of endpoints.
//
// BenchmarkScale prints a table and writes the package's types to a file. The command draw
// makes a picture from such files.
package scale

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"text/tabwriter"
)

// Run is what one run of the benchmark measured.
type Run struct {
	Label string `json:"label"` // what was measured, such as a commit
	Sizes []Size `json:"sizes"`
	// Compile is what it takes to compile 1,000 policies for 1,000 containers.
	Compile float64 `json:"compile_ms"`
}

// Size is what was measured with a number of endpoints. Times are in milliseconds.
type Size struct {
	Kind      string `json:"kind"` // "stub" or "docker"
	Endpoints int    `json:"endpoints"`
	Starts    int    `json:"starts"` // that the means are of
	Note      string `json:"note,omitempty"`

	StartCPU float64 `json:"start_cpu_ms" title:"start, CPU ms"`
	StopCPU  float64 `json:"stop_cpu_ms" title:"stop, CPU ms"`
	// Messages are what the agent sends to the kernel by netlink, Calls the system calls
	// that they go by, Forks the programs that it runs.
	Messages     float64 `json:"start_messages" title:"start, kernel messages"`
	Calls        float64 `json:"start_calls" title:"start, netlink calls"`
	Forks        float64 `json:"start_forks" title:"start, forks"`
	StopMessages float64 `json:"stop_messages" title:"stop, kernel messages"`
	StopForks    float64 `json:"stop_forks" title:"stop, forks"`
	// From the moment that nothing but netguard keeps a container's packets back, until
	// one gets through: with a pause between two containers, and without.
	AdmitP50 float64 `json:"admit_p50_ms" title:"admitted, p50 ms"`
	AdmitP99 float64 `json:"admit_p99_ms" title:"admitted, p99 ms"`
	QuickP50 float64 `json:"quick_p50_ms" title:"admitted, no pause, p50 ms"`
	QuickP99 float64 `json:"quick_p99_ms" title:"admitted, no pause, p99 ms"`
	// Idle is in percent of a core.
	Idle      float64 `json:"idle_percent" title:"idle, % of a core"`
	Status    float64 `json:"status_ms" title:"status, ms"`
	StatusCPU float64 `json:"status_cpu_ms" title:"status, agent's CPU ms"`
	// A restart after kill -9, until status says that all is in sync; packets of an
	// admitted container that were lost meanwhile, of one a millisecond.
	Restart float64 `json:"restart_ms" title:"restart, ms"`
	Lost    float64 `json:"restart_lost" title:"restart, packets lost"`
	First   float64 `json:"first_ms" title:"first start, ms"`
	// An edit of a policy about one service, until packets show it.
	Edit    float64 `json:"edit_ms" title:"edit of a policy, ms"`
	EditCPU float64 `json:"edit_cpu_ms" title:"edit of a policy, CPU ms"`
	RSS     float64 `json:"rss_mb" title:"memory, MB"`
	PeakRSS float64 `json:"rss_peak_mb" title:"memory at most, MB"`
}

// Table prints a run, a column for each size.
func (r Run) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(title string, cell func(Size) string) {
		fmt.Fprint(t, title, "\t")
		for _, s := range r.Sizes {
			fmt.Fprint(t, cell(s), "\t")
		}
		fmt.Fprintln(t)
	}
	line("endpoints", func(s Size) string { return fmt.Sprintf("%s %d", s.Kind, s.Endpoints) })
	of := reflect.TypeFor[Size]()
	for i := range of.NumField() {
		title := of.Field(i).Tag.Get("title")
		if title == "" {
			continue
		}
		line(title, func(s Size) string { return number(reflect.ValueOf(s).Field(i).Float()) })
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "compile 1,000 policies for 1,000 containers: %s ms\n", number(r.Compile))
	for _, s := range r.Sizes {
		if s.Note != "" {
			fmt.Fprintf(w, "%s %d: %s\n", s.Kind, s.Endpoints, s.Note)
		}
	}
	return nil
}

// number writes three digits, or a dash for what was not measured.
func number(v float64) string {
	switch {
	case v < 0:
		return "-"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// Read reads a run from a file.
func Read(file string) (Run, error) {
	var r Run
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return Run{}, fmt.Errorf("read run %s: %w", file, err)
	}
	return r, nil
}

// Write writes a run to a file.
func (r Run) Write(file string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(file, append(raw, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write run %s: %w", file, err)
	}
	return nil
}
