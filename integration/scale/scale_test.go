package scale

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	starts      = 20  // whose processor time is measured, one after the other
	quickStarts = 100 // for the time until they are admitted
	tracedOnes  = 5
	tracedRest  = 10 * time.Second
	settle      = time.Second     // after a start or stop, for what the agent does late
	pause       = time.Second / 2 // between two containers, where the machine is idle before each
	idle        = 30 * time.Second
)

// BenchmarkScale measures the cost of one more endpoint. NETGUARD_SCALE_STUB and
// NETGUARD_SCALE_DOCKER give the numbers of other endpoints, such as "10,100". The result is
// also written to the file NETGUARD_SCALE_JSON, with the label NETGUARD_SCALE_LABEL.
// NETGUARD_SCALE_AGENT is the path of another netguard to measure. perf and strace write
// their records to the folder NETGUARD_SCALE_PERF.
func BenchmarkScale(b *testing.B) {
	run := Run{Label: os.Getenv("NETGUARD_SCALE_LABEL")}
	for _, kind := range []struct {
		name, sizes string
		world       func(testing.TB, int) world
	}{
		{"docker", sizes("NETGUARD_SCALE_DOCKER", "10,100,300"), newReal},
		{"stub", sizes("NETGUARD_SCALE_STUB", "10,100,1000,5000"), newPlayed},
	} {
		for text := range strings.SplitSeq(kind.sizes, ",") {
			count, err := strconv.Atoi(text)
			if err != nil {
				continue // none
			}
			b.Run(fmt.Sprintf("%s/%d", kind.name, count), func(b *testing.B) {
				for b.Loop() {
					run.Sizes = append(run.Sizes, measure(b, kind.world(b, count), kind.name, count))
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
	run.Compile = compiled(b)
	fmt.Println()
	if err := run.Table(os.Stdout); err != nil {
		b.Fatal(err)
	}
	if file := os.Getenv("NETGUARD_SCALE_JSON"); file != "" {
		if err := run.Write(file); err != nil {
			b.Fatal(err)
		}
	}
}

func sizes(variable, otherwise string) string {
	if text, ok := os.LookupEnv(variable); ok {
		return text
	}
	return otherwise
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
