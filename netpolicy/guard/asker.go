package guard

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long each answer of the kernel may take. Netlink answers at once, unless
// the answer is lost or another program keeps the kernel busy: to remove a thousand devices
// takes seconds.
const patience = 10 * time.Second

// answer is the size of the buffer for one piece of an answer. The kernel makes pieces as
// large as the buffer, up to 32 KiB. With larger pieces it searches its place less often.
const answer = 64 << 10

// asker is a netlink socket for questions. A late answer may arrive after the next question,
// and would be taken for the answer to it. So after a late answer the asker opens another
// socket.
type asker struct {
	family   int
	patience time.Duration
	options  func(*netlink.Conn) // set on each socket
	conn     *netlink.Conn       // nil where another one is to be made
}

func newAsker(family int, options func(*netlink.Conn)) (*asker, error) {
	a := &asker{family: family, patience: patience, options: options}
	return a, a.dial()
}

func (a *asker) dial() error {
	c, err := netlink.Dial(a.family, &netlink.Config{MessageBufferSize: answer})
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if a.conn = c; a.options != nil {
		a.options(c)
	}
	return nil
}

// ask sends a question and gives the answers. Where the kernel refuses, the error is a
// unix.Errno.
func (a *asker) ask(m netlink.Message) ([]netlink.Message, error) {
	if a.conn == nil {
		if err := a.dial(); err != nil {
			return nil, err
		}
	}
	if err := a.conn.SetDeadline(time.Now().Add(a.patience)); err != nil {
		return nil, err
	}
	answers, err := a.conn.Execute(m)
	if stray(err) {
		a.close()
	}
	return answers, err
}

// stray tells whether an answer may still come after an error: the error is not from the
// kernel, or it says that answers were lost, or that an earlier list goes on.
func stray(err error) bool {
	var errno unix.Errno
	return err != nil && (!errors.As(err, &errno) || errno == unix.ENOBUFS || errno == unix.EBUSY)
}

func (a *asker) close() {
	if a != nil && a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}
