package checksum

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// ErrUnsupported says that this kernel, or what this process may do, is not enough.
var ErrUnsupported = errors.New("BPF programs that see what the kernel still writes (Linux 6.6 with CONFIG_DEBUG_INFO_BTF, and CAP_BPF and CAP_PERFMON)")

// name is what the kernel calls the program, as bpftool shows it.
const name = "netguard_csum"

// Program is one of two programs: one spoils and marks frames, the other only marks them. It is
// loaded into the kernel when it is first needed. It stays attached when the process ends.
type Program struct {
	spec        ebpf.ProgramSpec
	fingerprint Fingerprint
	loaded      *ebpf.Program
	id          ID
}

// ID is the kernel's number of a program.
type ID uint32

// Fingerprint tells programs apart that do different things. It is never 0.
type Fingerprint uint32

// New assembles a program for this kernel. With spoil, the program makes bad frames harmless;
// without, it only marks them.
func New(spoil bool) (*Program, error) {
	l, err := newLayout()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	p := &Program{spec: ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "GPL", Instructions: code(l, spoil)}}
	sum := sha256.Sum256(fmt.Append(nil, p.spec.Instructions))
	p.fingerprint = Fingerprint(binary.BigEndian.Uint32(sum[:]) | 1)
	return p, nil
}

// Load loads the program into the kernel, which checks it. A second call does nothing.
func (p *Program) Load() error {
	if p.loaded != nil {
		return nil
	}
	loaded, err := ebpf.NewProgram(&p.spec)
	if err != nil {
		return fmt.Errorf("%w: load program: %w", ErrUnsupported, err)
	}
	info, err := loaded.Info()
	if err == nil {
		if id, ok := info.ID(); ok {
			p.loaded, p.id = loaded, ID(id)
			return nil
		}
		err = ErrUnsupported
	}
	return errors.Join(fmt.Errorf("ask for the program's number: %w", err), loaded.Close())
}

// ID gives its number, 0 while it is not loaded.
func (p *Program) ID() ID { return p.id }

// Fingerprint gives a number that is the same for all programs that do the same.
func (p *Program) Fingerprint() Fingerprint { return p.fingerprint }

// Close closes this process's handle of the program. Where it is attached, it stays.
func (p *Program) Close() error {
	if p.loaded == nil {
		return nil
	}
	return p.loaded.Close()
}

// Attach puts it before all other programs at a device's ingress. One that is there
// already stays.
func (p *Program) Attach(device int) error {
	if err := p.Load(); err != nil {
		return err
	}
	err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: device, Program: p.loaded, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("attach program %d to device %d: %w", p.id, device, err)
	}
	return nil
}

// Attached lists the programs at a device's ingress, in order. It leaves out programs that a BPF
// link holds there. It lists none if there is no such device.
func Attached(device int) ([]ID, error) {
	all, _, err := query(device)
	out := make([]ID, 0, len(all))
	for _, p := range all {
		if p.link == 0 {
			out = append(out, p.id)
		}
	}
	return out, err
}

// placed is a program at a device. One that a link holds there has the link's number.
type placed struct {
	id   ID
	link uint32
}

// queryAttr is what BPF_PROG_QUERY takes (union bpf_attr).
type queryAttr struct {
	device, at, flags, attached uint32
	programs                    uint64
	count, _                    uint32
	programFlags, links         uint64
	linkFlags, revision         uint64
}

// most is how many programs the kernel takes at one place (BPF_MPROG_MAX).
const most = 64

// answer is where the kernel writes what it has.
var answer struct {
	sync.Mutex
	programs, links [most]uint32
}

// query lists the programs at a device's ingress, in order, and tells how often they were
// changed. The library's function asks the kernel twice.
func query(device int) ([]placed, uint64, error) {
	answer.Lock()
	defer answer.Unlock()
	attr := queryAttr{device: uint32(device), at: uint32(ebpf.AttachTCXIngress), count: most,
		programs: uint64(uintptr(unsafe.Pointer(&answer.programs))), links: uint64(uintptr(unsafe.Pointer(&answer.links)))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 && !gone(errno) {
		return nil, 0, fmt.Errorf("list programs of device %d: %w", device, errno)
	}
	if errno != 0 {
		return nil, 0, nil
	}
	out := make([]placed, attr.count)
	for i := range out {
		out[i] = placed{ID(answer.programs[i]), answer.links[i]}
	}
	return out, attr.revision, nil
}

// gone tells whether there is no such device, or nothing is attached to it.
func gone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) }

// detachAttr is what BPF_PROG_DETACH takes (union bpf_attr).
type detachAttr struct {
	device, program, at, flags, replace, relative uint32
	revision                                      uint64
}

// Detach takes a program off a device. It tells the kernel the program's place in the list: to
// get the program itself, which another process may have loaded, needs CAP_SYS_ADMIN.
func Detach(device int, id ID) error {
	// Another program may come or go meanwhile; the kernel says so.
	for range 5 {
		all, revision, err := query(device)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(p placed) bool { return p == placed{id: id} })
		if i < 0 {
			return nil
		}
		attr := detachAttr{device: uint32(device), at: uint32(ebpf.AttachTCXIngress), flags: unix.BPF_F_BEFORE, revision: revision}
		if i > 0 {
			attr.flags, attr.relative = unix.BPF_F_AFTER|unix.BPF_F_ID, uint32(all[i-1].id)
		}
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_DETACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		switch {
		case errno == 0 || gone(errno):
			return nil
		case errno != unix.ESTALE:
			return fmt.Errorf("detach program %d from device %d: %w", id, device, errno)
		}
	}
	return fmt.Errorf("detach program %d from device %d: %w", id, device, unix.ESTALE)
}

// Ours tells by its name whether a program is netguard's, of whatever version. Without
// CAP_SYS_ADMIN it always gives false.
func Ours(id ID) bool {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && info.Name == name
}
