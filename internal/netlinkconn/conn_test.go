package netlinkconn

import (
	"errors"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func TestConn(t *testing.T) {
	c, err := Dial(unix.NETLINK_ROUTE, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	links := 0
	count := func([]byte) error { links++; return nil }
	request := make([]byte, unix.SizeofIfInfomsg)
	if err := c.Execute(unix.RTM_GETLINK, netlink.Dump, request, count); err != nil || links == 0 {
		t.Errorf("%d links, error %v", links, err)
	}
	// A link that is not there: the kernel refuses that message and answers the others.
	request[4], request[5] = 0xff, 0xff
	if err := c.Execute(unix.RTM_GETLINK, 0, request, count); !errors.Is(err, unix.ENODEV) {
		t.Errorf("error = %v", err)
	}
	one := []byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	get := func(data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: data}
	}
	links = 0
	var refused []int
	err = c.Exchange([]netlink.Message{get(one), get(request), get(one)}, count, func(at int, _ error) { refused = append(refused, at) })
	if err != nil || links != 2 || len(refused) != 1 || refused[0] != 1 {
		t.Errorf("%d links, refused %v, error %v", links, refused, err)
	}
}
