package remains

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Find returns the record of a living engine.
func Find(name string) (Record, error) {
	raw, err := os.ReadFile(Record{Name: name}.path())
	if err != nil {
		return Record{}, fmt.Errorf("find record: %w", err)
	}
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Record{}, fmt.Errorf("read record of %s: %w", name, err)
	}
	return r, r.check()
}

// Left lists what is still left of the engine on the machine. After Remove it is empty.
func (r Record) Left() ([]string, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	pids, err := r.Processes()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, pid := range pids {
		left = append(left, fmt.Sprintf("process %d", pid))
	}
	mounts, err := MountsBelow(r.Dir)
	if err != nil {
		return nil, err
	}
	for _, mount := range mounts {
		left = append(left, "mount "+mount)
	}
	for _, dir := range r.cgroups() {
		left = append(left, "cgroup "+dir)
	}
	files := []string{r.Dir, r.path()}
	for _, name := range r.Netns {
		files = append(files, filepath.Join(netnsDir, name))
	}
	for _, file := range files {
		if _, err := os.Lstat(file); err == nil {
			left = append(left, file)
		}
	}
	return left, nil
}
