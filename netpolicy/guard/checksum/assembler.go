package checksum

import (
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// assembler gathers instructions.
type assembler struct {
	layout layout
	code   asm.Instructions
}

func (a *assembler) emit(all ...asm.Instruction) { a.code = append(a.code, all...) }

// at emits an instruction that jumps lead to.
func (a *assembler) at(label string, ins asm.Instruction) { a.emit(ins.WithSymbol(label)) }

// kernel emits a call of a kernel function. The library has no function for that: it calls only
// those kernel functions that a compiler named in an ELF file.
func (a *assembler) kernel(function btf.TypeID) {
	a.emit(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(function)})
}

// bits reads a bit field of the frame. The bits stay at their place in the byte.
func (a *assembler) bits(into asm.Register, b bits) {
	a.emit(asm.LoadMem(into, skb, b.at, asm.Byte), asm.And.Imm(into, b.mask))
}

func (a *assembler) bitsAt(label string, into asm.Register, b bits) {
	a.at(label, asm.LoadMem(into, skb, b.at, asm.Byte))
	a.emit(asm.And.Imm(into, b.mask))
}

// start computes where the bytes begin that the pending checksum is about, counted from the
// beginning of the frame. It also uses R3.
func (a *assembler) start(into asm.Register) {
	a.emit(
		asm.LoadMem(into, skb, a.layout.csumStart, asm.Half),
		asm.LoadMem(asm.R3, skb, a.layout.head, asm.DWord),
		asm.Add.Reg(into, asm.R3),
		asm.LoadMem(asm.R3, skb, a.layout.data, asm.DWord),
		asm.Sub.Reg(into, asm.R3))
}

// load copies bytes of the frame to the stack. A frame that is too short for them is bad. The
// given instruction sets R2 to the offset in the frame; if it is empty, R2 is set already.
func (a *assembler) load(offset asm.Instruction, to int32, size int32) {
	if offset.OpCode != 0 {
		a.emit(offset)
	}
	a.emit(
		asm.Mov.Reg(asm.R1, ctx),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, to),
		asm.Mov.Imm(asm.R4, size),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "bad"))
}
