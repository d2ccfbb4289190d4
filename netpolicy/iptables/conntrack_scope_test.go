package iptables

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ti-mo/conntrack"
)

// TestCutTouched: connections are gone over as far as a change may be about them, whether
// the kernel lists all that it has or those of an address.
func TestCutTouched(t *testing.T) {
	for _, others := range []int{0, fewEntries} {
		t.Run(fmt.Sprint("beside_", others), func(t *testing.T) {
			namespace(t)
			d := open(t)
			c := connections(t)
			add := func(src, dst, to, back string, port uint16) {
				t.Helper()
				f := conntrack.NewFlow(17, 0, addr(src), addr(dst), port, 53, 300, 0)
				f.TupleReply.IP.SourceAddress, f.TupleReply.IP.DestinationAddress = addr(to), addr(back)
				if err := c.Create(f); err != nil {
					t.Fatal(err)
				}
			}
			for i := range others {
				add("10.77.0.1", "10.77.0.2", "10.77.0.2", "10.77.0.1", uint16(1000+i))
			}
			asked := func(all bool) (ports []uint16) {
				t.Helper()
				_, err := d.Cut(context.Background(), all, func(f Flow) bool {
					if port := f.Src.Port(); !slices.Contains(ports, port) && port < 1000 {
						ports = append(ports, port)
					}
					return true
				})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(ports)
				return ports
			}
			apply(t, d, wishOf(shopOf(3)))
			add("10.77.0.1", "10.77.0.2", "10.77.0.2", "10.77.0.1", 1)
			add("10.77.0.4", "10.77.0.1", "10.77.0.1", "10.77.0.4", 2)
			add("10.77.0.1", "10.77.0.4", "10.77.0.4", "10.77.0.1", 3)
			add("10.77.0.1", "192.0.2.1", "10.77.0.4", "10.77.0.1", 4)
			add("10.77.0.1", "10.77.0.2", "10.77.0.2", "10.77.0.4", 5)
			add("2001:db8:77::4", "2001:db8:77::1", "2001:db8:77::1", "2001:db8:77::4", 6)
			add("2001:db8:77::1", "2001:db8:77::2", "2001:db8:77::2", "2001:db8:77::1", 7)
			everything, news := []uint16{1, 2, 3, 4, 5, 6, 7}, []uint16{2, 3, 4, 5, 6}
			if got := asked(false); !slices.Equal(got, everything) {
				t.Errorf("the first time it asks for %v", got)
			}
			if got := asked(false); got != nil {
				t.Errorf("where nothing changed it asks for %v", got)
			}
			apply(t, d, wishOf(shopOf(4)))
			if got := asked(false); !slices.Equal(got, news) {
				t.Errorf("of a container that came it asks for %v", got)
			}
			if got := asked(true); !slices.Equal(got, everything) {
				t.Errorf("where rules may have been away it asks for %v", got)
			}
			apply(t, d, wishOf(shopOf(3)))
			apply(t, d, wishOf(shopOf(4)))
			over, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := d.Cut(over, false, func(Flow) bool { return true }); err == nil {
				t.Error("no error")
			}
			if got := asked(false); !slices.Equal(got, everything) {
				t.Errorf("after an error it asks for %v", got)
			}
		})
	}
}
