package config

import (
	"os"
	"syscall"
	"time"
)

// sight is what os.Stat says of a file. It differs whenever the file may have changed.
type sight struct {
	fault    string
	inode    inode
	size     int64
	modified time.Time
	changed  syscall.Timespec
}

func look(name string) sight {
	info, err := os.Stat(name)
	if err != nil {
		return sight{fault: err.Error()}
	}
	s := sight{inode: inodeOf(info), size: info.Size(), modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.changed = st.Ctim
	}
	return s
}

// inode tells one file or directory from all others that exist.
type inode struct{ dev, ino uint64 }

func inodeOf(info os.FileInfo) inode {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}
	}
	return inode{uint64(st.Dev), st.Ino}
}

func lookAll(names []string) map[string]sight {
	seen := make(map[string]sight, len(names))
	for _, name := range names {
		seen[name] = look(name)
	}
	return seen
}
