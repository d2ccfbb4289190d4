package smallfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("file"), []byte("123456"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("file", at("link")), os.Symlink("gone", at("dangling")), unix.Mkfifo(at("fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		most int
		want string
		err  error
	}{
		"file":        {most: 6, want: "123456"},
		"link":        {most: 7, want: "123456"},
		"./file":      {most: 4, want: "12345"}, // a byte more
		"dangling":    {most: 6, err: fs.ErrNotExist},
		"gone":        {most: 6, err: fs.ErrNotExist},
		"fifo":        {most: 6, err: ErrNotRegular}, // and does not wait
		".":           {most: 6, err: ErrNotRegular},
		"file/within": {most: 6, err: unix.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Read(at(name), test.most); string(got) != test.want || !errors.Is(err, test.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
