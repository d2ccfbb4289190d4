package integration

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/network"

	. "netguard/integration/harness"
)

// fresh is a network that was made a moment ago, with two containers: one that is in
// a hurry, and a neighbour that counts what it gets of it.
type fresh struct {
	id          string
	near, hasty *Container
	err         error
}

// nearNew is what the neighbours on new networks are called.
const nearNew = "a neighbour on a new network"

// afresh makes networks, some at a time, and at once runs containers on each, as
// docker compose up does.
func (l *leak) afresh(t *testing.T, networks, atATime int) {
	t.Helper()
	for ; networks > 0; networks -= atATime {
		made := make([]fresh, min(networks, atATime))
		var wg sync.WaitGroup
		for i := range made {
			l.number++
			number := l.number
			wg.Go(func() { made[i] = l.compose(t, number) })
		}
		wg.Wait()
		for _, f := range made {
			if f.err != nil {
				t.Fatal(f.err)
			}
			f.hasty.Wait()
			f.near.Stop()
			l.near[nearNew] += sunk(t, f.near.Logs())
			f.near.Remove()
			f.hasty.Remove()
			if err := l.e.Client.NetworkRemove(t.Context(), f.id); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// compose makes one network and its containers. It looks at nothing in between.
func (l *leak) compose(t *testing.T, number int) fresh {
	name, subnet := fmt.Sprintf("new-%d", number), fmt.Sprintf("198.19.%d", number%250)
	o := network.CreateOptions{Driver: "bridge"}
	Subnet(subnet + ".0/24")(&o)
	Subnet(fmt.Sprintf("fd00:%x::/64", 0x1000+number%250))(&o)
	made, err := l.e.Client.NetworkCreate(t.Context(), name, o)
	if err != nil {
		return fresh{err: err}
	}
	f := fresh{id: made.ID}
	e := l.e.For(t)
	near, err := e.TryCreate("near-"+name, On(name, subnet+".10"), Doing("sink", "udp", ":9022"))
	if err != nil {
		return fresh{err: err}
	}
	// The kernel takes up to two seconds for the new bridge's IPv6 address to count.
	hasty, err := e.TryCreate("hasty-"+name, On(name), volley("2500ms", l.anew, subnet+".10:9022", subnet+".1:9018"))
	if err != nil {
		return fresh{err: err}
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, c := range []*Container{near, hasty} {
		wg.Go(func() { errs[i] = c.TryStart(t.Context()) })
	}
	wg.Wait()
	f.near, f.hasty, f.err = near, hasty, errors.Join(errs...)
	return f
}
