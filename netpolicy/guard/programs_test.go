package guard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	bpflink "github.com/cilium/ebpf/link"

	"netguard/netpolicy/guard/checksum"
)

// programs lists what is attached to the devices of this namespace.
func programs(t *testing.T) string {
	t.Helper()
	links, err := openRtnl()
	if err != nil {
		t.Fatal(err)
	}
	defer links.close()
	devices, err := links.devices()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, device := range devices {
		for _, id := range attachedTo(t, device) {
			fmt.Fprintf(&b, "%d:%d ", device, id)
		}
	}
	return b.String()
}

func attachedTo(t *testing.T, device int) []checksum.ID {
	t.Helper()
	all, err := checksum.Attached(device)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// detach takes all programs off a device.
func detach(t *testing.T, d *Driver, device int) {
	t.Helper()
	for _, id := range attachedTo(t, device) {
		if err := checksum.Detach(device, id); err != nil {
			t.Fatal(err)
		}
	}
	if all := attachedTo(t, device); len(all) > 0 {
		t.Fatalf("still attached: %v", all)
	}
}

// foreignProgram attaches a program that lets everything pass.
func foreignProgram(t *testing.T, device int) checksum.ID {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "foreign", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := bpflink.RawAttachProgram(bpflink.RawAttachProgramOptions{Target: device, Program: p, Attach: ebpf.AttachTCXIngress}); err != nil {
		t.Fatal(err)
	}
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return checksum.ID(id)
}
