// Package smallfile reads small files that somebody else may have put there. It
// promises not to wait for what is no regular file, and not to fill the memory.
package smallfile

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrNotRegular is said of a FIFO, a device, a socket or a directory.
var ErrNotRegular = errors.New("is not a regular file")

// Read gives what is in a regular file. From a file that is larger than most it gives most+1
// bytes, so that the caller can report it. The error is ErrNotRegular, or one of package os.
func Read(name string, most int) ([]byte, error) {
	// Opening a FIFO would wait for its writer.
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %w", name, ErrNotRegular)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(most)+1))
}
