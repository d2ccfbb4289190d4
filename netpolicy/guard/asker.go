package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/netlinkconn"
)

// patience is how long each answer of the kernel may take. Netlink answers at once, unless
// the answer is lost or another program keeps the kernel busy: to remove a thousand devices
// takes seconds.
const patience = 10 * time.Second

// answer is the size of the buffer for one piece of an answer. The kernel makes pieces as
// large as the buffer, up to 32 KiB. With larger pieces it searches its place less often.
const answer = 64 << 10

// asker is a netlink socket for questions. After an answer that is late, or lost, it opens
// another socket.
type asker struct {
	family int
	strict bool              // the kernel refuses filters that it does not understand
	conn   *netlinkconn.Conn // nil where another one is to be made
	holes  bool              // a list that was used may lack something; see list
}

func newAsker(family int, strict bool) (*asker, error) {
	a := &asker{family: family, strict: strict}
	return a, a.dial()
}

func (a *asker) dial() error {
	c, err := netlinkconn.Dial(a.family, patience)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if a.conn = c; a.strict {
		c.Strict()
	}
	return nil
}

// ask sends a question and gives the answers. Where the kernel refuses, the error is a
// unix.Errno. Whole is false where something came or went while a list was made.
func (a *asker) ask(typ uint16, flags netlink.HeaderFlags, data []byte) (answers [][]byte, whole bool, err error) {
	if a.conn == nil {
		if err := a.dial(); err != nil {
			return nil, false, err
		}
	}
	err = a.conn.Execute(typ, flags, data, func(data []byte) error {
		answers = append(answers, bytes.Clone(data))
		return nil
	})
	whole = !a.conn.Holes
	if stray(err) {
		a.close()
	}
	return answers, whole, err
}

// stray tells whether an answer may still come after an error: the error is not from the
// kernel's answer, or it says that answers were lost, or that an earlier list goes on.
func stray(err error) bool {
	var errno unix.Errno
	return err != nil && (!errors.As(err, &errno) || errors.As(err, new(*os.SyscallError)) || errno == unix.ENOBUFS || errno == unix.EBUSY)
}

func (a *asker) close() {
	if a != nil && a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}
