package iptables

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Glance tells whether something is evidently not as the last Apply or Verify left
// it. It asks, without a fork and in a fraction of a millisecond, for what nothing
// tells of by itself: how many members each set has and, of the legacy backend, how
// many rules there are. What it does not see, Verify does.
func (d *Driver) Glance() (bool, error) {
	k := d.kernel
	if k == nil {
		return false, nil
	}
	headers, err := d.sets.headers("")
	if err != nil {
		return false, fmt.Errorf("glance at sets: %w", err)
	}
	here := make(map[string]setHeader, len(headers))
	for _, h := range headers {
		here[h.name] = h
	}
	for name, held := range k.sets {
		h, ok := here[name]
		switch {
		case !ok:
			return true, nil
		case !h.wished():
		case int(h.elements) != len(held.members)+len(held.places):
			return true, nil
		}
	}
	for _, i := range d.families {
		size, err := k.active.size(i)
		if err != nil {
			return false, err
		}
		if size != k.sizes[i] {
			return true, nil
		}
	}
	return false, nil
}

// tableInfo is struct ipt_getinfo, and struct ip6t_getinfo.
type tableInfo struct {
	name            [32]byte
	hooks           uint32
	entry, overflow [5]uint32
	rules, bytes    uint32
}

// legacyInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const legacyInfo = 64

// legacySize is how large a table of the legacy backend is.
type legacySize struct{ rules, bytes uint32 }

// tableSize asks for the filter table of a family, which makes it if it is not
// there.
func tableSize(i int) (legacySize, error) {
	domain, level := unix.AF_INET, unix.SOL_IP
	if i == 1 {
		domain, level = unix.AF_INET6, unix.SOL_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return legacySize{}, fmt.Errorf("open socket: %w", err)
	}
	var info tableInfo
	copy(info.name[:], filter)
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), legacyInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	err = unix.Close(fd)
	if errno != 0 {
		err = errors.Join(errno, err)
	}
	return legacySize{info.rules, info.bytes}, err
}

// size is how large the filter table is, before it is read: what comes after that
// shows. It is zero of what nothing needs to be asked of.
func (b *backend) size(i int) (legacySize, error) {
	if b.kind != Legacy || !b.present(i) {
		return legacySize{}, nil
	}
	size, err := tableSize(i)
	if err != nil {
		return legacySize{}, fmt.Errorf("measure %s rules: %w", familyNames[i], err)
	}
	return size, nil
}
