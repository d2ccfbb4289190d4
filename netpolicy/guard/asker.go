package guard

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds each answer of the kernel: netlink answers at once, unless the
// answer was lost, or another program holds the kernel up: one that removes a thousand
// devices does so for seconds.
const patience = 10 * time.Second

// answer is room for one piece of the kernel's answer. It makes pieces as large as
// there is room, up to 32 KiB; the larger, the less often it looks for where it was.
const answer = 64 << 10

// asker is a netlink socket for questions. An answer that stays out too long may arrive
// when the next question was asked, and would be taken for its answer, and so on for
// ever: after that the asker takes another socket.
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

// ask sends a question and gives the answers. The kernel's word that it will not is a
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

// stray tells whether an error may leave an answer behind: it is not the kernel's, or says
// that answers were lost, or that an earlier list still goes on.
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
