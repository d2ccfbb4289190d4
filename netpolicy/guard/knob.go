package guard

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// knob is a setting of the host's namespace; see reassembly.go.
type knob struct {
	path string // below /proc/sys/net
	time bool   // less is better
}

// knobs are all of these settings. The table records each by its place here, which never
// changes.
var knobs = [...]knob{
	{path: "ipv4/ipfrag_high_thresh"},
	{path: "ipv4/ipfrag_time", time: true},
	{path: "ipv6/ip6frag_high_thresh"},
	{path: "ipv6/ip6frag_time", time: true},
	{path: "netfilter/nf_conntrack_frag6_high_thresh"},
	{path: "netfilter/nf_conntrack_frag6_timeout", time: true},
}

const sysctls = "/proc/sys/net/"

func (k knob) String() string { return "net." + strings.ReplaceAll(k.path, "/", ".") }

// better gives the value that netguard writes, and false if the present value is as good or
// better: the operator may have set it.
func (k knob) better(now string, memory uint64) (string, bool) {
	n, err := strconv.ParseUint(now, 10, 64)
	switch {
	case err != nil:
		return "", false
	case k.time && n > reassemblyTime:
		return strconv.Itoa(reassemblyTime), true
	case !k.time && n < memory:
		return strconv.FormatUint(memory, 10), true
	}
	return "", false
}

// beyond tells whether a setting is better than netguard's.
func (k knob) beyond(now string, memory uint64) bool {
	n, err := strconv.ParseUint(now, 10, 64)
	return err == nil && (k.time && n < reassemblyTime || !k.time && n > memory)
}

// read reads a knob. Its file stays open: on a host with many namespaces the kernel takes long
// to find it by its name.
func (k *reassembly) read(i int) (string, error) {
	if k.files[i] == nil {
		f, err := os.Open(sysctls + knobs[i].path)
		if err != nil {
			return "", err
		}
		k.files[i] = f
	}
	text := make([]byte, 32)
	n, err := k.files[i].ReadAt(text, 0)
	if err != nil && err != io.EOF {
		_ = k.files[i].Close()
		k.files[i] = nil
		return "", err
	}
	return strings.TrimSpace(string(text[:n])), nil
}

// close closes the files.
func (k *reassembly) close() {
	for _, f := range k.files {
		_ = f.Close() // also of nil
	}
}
