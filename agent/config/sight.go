package config

import (
	"os"
	"syscall"
	"time"
)

// sight is what os.Stat says of a file. It differs whenever the file may have changed.
type sight struct {
	fault    string
	dev, ino uint64
	size     int64
	modified time.Time
	changed  syscall.Timespec
}

func look(name string) sight {
	info, err := os.Stat(name)
	if err != nil {
		return sight{fault: err.Error()}
	}
	s := sight{size: info.Size(), modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino = uint64(st.Dev), st.Ino
		s.changed = st.Ctim
	}
	return s
}

func lookAll(names []string) map[string]sight {
	seen := make(map[string]sight, len(names))
	for _, name := range names {
		seen[name] = look(name)
	}
	return seen
}
