package iptables

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

func TestOthers(t *testing.T) {
	forBackends(t, "write_at_the_same_time", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		cmds := [2]string{cmdOf(d, false), cmdOf(d, true)}
		stop, ended := make(chan struct{}), make(chan error, 1)
		rounds := 0
		home, err := netns.Get()
		if err != nil {
			t.Fatal(err)
		}
		defer home.Close()
		go func() {
			ended <- func() error {
				runtime.LockOSThread()
				if err := netns.Set(home); err != nil {
					return err
				}
				for ; ; rounds++ {
					for _, cmd := range cmds {
						for _, action := range []string{"-I", "-D"} {
							from := map[string]string{cmds[0]: "192.0.2.9", cmds[1]: "2001:db8::9"}[cmd]
							out, err := exec.Command(cmd, "-w", "5", action, "DOCKER", "-s", from, "-j", "DROP").CombinedOutput()
							if err != nil {
								return fmt.Errorf("%s %s: %w: %s", cmd, action, err, out)
							}
						}
					}
					select {
					case <-stop:
						return nil
					default:
					}
				}
			}()
		}()
		for i := range 30 {
			apply(t, d, states()[i%len(states())].wish())
		}
		close(stop)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if rounds < 5 {
			t.Errorf("others came to their turn %d times only", rounds)
		}
		inSync(t, d)
	})
}
