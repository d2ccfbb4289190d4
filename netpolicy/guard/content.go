package guard

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A rule of the plan is compared with a rule of the kernel by its expressions and its comment.
// The kernel does not give expressions back as they were written: it changes the order of
// attributes, leaves out or adds attributes that have no effect, and calls registers by older
// names. So both rules are put into one form, a text, and the texts are compared. A kernel may
// change more than that: see filter.learn.

// shape says how the attributes of a kind of expression are put into the text.
type shape struct {
	registers []uint16
	values    []uint16 // data: bytes, or a verdict
	silent    []uint16 // attributes that do not matter
	flags     uint16   // those of a dynset
	inner     uint16   // an expression in it
}

// dynsetExprs is NFT_DYNSET_F_EXPR. It says in which attribute the inner expressions are.
const dynsetExprs = 1 << 1

var shapes = map[string]shape{
	"meta":      {registers: []uint16{unix.NFTA_META_DREG, unix.NFTA_META_SREG}},
	"ct":        {registers: []uint16{unix.NFTA_CT_DREG, unix.NFTA_CT_SREG}},
	"payload":   {registers: []uint16{unix.NFTA_PAYLOAD_DREG, unix.NFTA_PAYLOAD_SREG}},
	"exthdr":    {registers: []uint16{unix.NFTA_EXTHDR_DREG, unix.NFTA_EXTHDR_SREG}},
	"byteorder": {registers: []uint16{unix.NFTA_BYTEORDER_SREG, unix.NFTA_BYTEORDER_DREG}},
	"numgen":    {registers: []uint16{unix.NFTA_NG_DREG}},
	"cmp":       {registers: []uint16{unix.NFTA_CMP_SREG}, values: []uint16{unix.NFTA_CMP_DATA}},
	"immediate": {registers: []uint16{unix.NFTA_IMMEDIATE_DREG}, values: []uint16{unix.NFTA_IMMEDIATE_DATA}},
	"bitwise": {registers: []uint16{unix.NFTA_BITWISE_SREG, unix.NFTA_BITWISE_DREG},
		values: []uint16{unix.NFTA_BITWISE_MASK, unix.NFTA_BITWISE_XOR}},
	"lookup": {registers: []uint16{unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_DREG}, silent: []uint16{unix.NFTA_LOOKUP_SET_ID}},
	"dynset": {registers: []uint16{unix.NFTA_DYNSET_SREG_KEY, unix.NFTA_DYNSET_SREG_DATA}, silent: []uint16{unix.NFTA_DYNSET_SET_ID},
		flags: unix.NFTA_DYNSET_FLAGS, inner: unix.NFTA_DYNSET_EXPR},
	"counter": {silent: []uint16{unix.NFTA_COUNTER_BYTES, unix.NFTA_COUNTER_PACKETS}},
}

// worded gives the text of a list of expressions.
func worded(list []byte) (string, error) {
	var all []string
	err := attributes(list, func(_ uint16, one []byte) error {
		text, err := wordExpression(one)
		all = append(all, text)
		return err
	})
	return strings.Join(all, "; "), err
}

func wordExpression(one []byte) (string, error) {
	var name string
	var data []byte
	if err := attributes(one, func(typ uint16, b []byte) error {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = cut(b)
		case unix.NFTA_EXPR_DATA:
			data = b
		}
		return nil
	}); err != nil {
		return "", err
	}
	words, known := []string{}, shapes[name]
	err := attributes(data, func(typ uint16, b []byte) error {
		text, err := known.word(typ, b)
		if text != "" {
			words = append(words, fmt.Sprintf("%d=%s", typ, text))
		}
		return err
	})
	slices.Sort(words)
	return strings.Join(append([]string{name}, words...), " "), err
}

// word gives the text of an attribute's value. For zero the text is empty, as if the attribute
// were missing.
func (s shape) word(typ uint16, b []byte) (string, error) {
	switch {
	case slices.Contains(s.silent, typ):
		return "", nil
	case slices.Contains(s.values, typ):
		return wordValue(b)
	case s.inner != 0 && typ == s.inner:
		text, err := wordExpression(b)
		if text == "counter" {
			text = "" // not every kernel repeats what the set itself says
		}
		return text, err
	case len(b) == 4 && slices.Contains(s.registers, typ):
		return fmt.Sprintf("r%d", registerOf(binary.BigEndian.Uint32(b))), nil
	case len(b) == 4 && s.flags != 0 && typ == s.flags:
		b = binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(b)&^dynsetExprs)
	}
	if b = bytes.TrimRight(b, "\x00"); len(b) == 0 {
		return "", nil
	}
	return hex.EncodeToString(b), nil
}

// registerOf turns the old name of a register, of 16 bytes, into the new name of its first word,
// of 4 bytes. All other numbers stay as they are.
func registerOf(n uint32) uint32 {
	if n >= unix.NFT_REG_1 && n <= unix.NFT_REG_4 {
		return unix.NFT_REG32_00 + 4*(n-unix.NFT_REG_1)
	}
	return n
}

// wordValue gives the text of data, where zeros count.
func wordValue(b []byte) (string, error) {
	var words []string
	err := attributes(b, func(typ uint16, b []byte) error {
		if typ != unix.NFTA_DATA_VERDICT {
			words = append(words, hex.EncodeToString(b))
			return nil
		}
		return attributes(b, func(typ uint16, b []byte) error {
			switch typ {
			case unix.NFTA_VERDICT_CODE:
				words = append(words, "verdict "+hex.EncodeToString(b))
			case unix.NFTA_VERDICT_CHAIN:
				words = append(words, cut(b))
			}
			return nil
		})
	})
	return strings.Join(words, " "), err
}

// cut takes the end off a string.
func cut(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// content is the text of a rule. If the rule cannot be encoded, its text differs from all rules
// of the kernel. So netguard tries to write it, and the write gives the error.
func (r rule) content() string {
	words := make([]string, len(r.exprs))
	for i, e := range r.exprs {
		b, err := expr.Marshal(byte(bridgeFamily), e)
		if err == nil {
			words[i], err = wordExpression(b)
		}
		if err != nil {
			words[i] = "error: " + err.Error()
		}
	}
	return r.comment + ": " + strings.Join(words, "; ")
}

// chainContents gives for each chain what is compared with the kernel: its head and
// its rules, in order.
func chainContents(rules []rule, head func(chain string) []string) map[string]string {
	all := map[string][]string{}
	for _, r := range rules {
		if _, ok := all[r.chain]; !ok {
			all[r.chain] = head(r.chain)
		}
		all[r.chain] = append(all[r.chain], r.content())
	}
	out := make(map[string]string, len(all))
	for chain, lines := range all {
		out[chain] = strings.Join(lines, "\n")
	}
	return out
}

// contents reads the rules of all chains of the table.
func (f *filter) contents() (map[string][]string, error) {
	out := map[string][]string{}
	err := f.ask(unix.NFT_MSG_GETRULE, netlink.Dump, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, f.name)
	}, func(data []byte) error {
		table, chain, text, err := parseRule(data)
		if table == f.name { // kernels before 4.10 list all tables
			out[chain] = append(out[chain], text)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return out, nil
}

// parseRule reads one message of a dump.
func parseRule(data []byte) (table, chain, text string, err error) {
	var comment string
	err = attributes(data, func(typ uint16, b []byte) (err error) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			table = cut(b)
		case unix.NFTA_RULE_CHAIN:
			chain = cut(b)
		case unix.NFTA_RULE_EXPRESSIONS:
			text, err = worded(b)
		case unix.NFTA_RULE_USERDATA:
			comment = commentOf(b)
		}
		return err
	})
	return table, chain, comment + ": " + text, err
}

// commentOf finds the comment in a rule's user data, which may be anything.
func commentOf(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if userdata.Type(b[0]) == userdata.TypeComment {
			return cut(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// maxLearned bounds what is learned.
const maxLearned = 1024

// learn remembers how the kernel gives back the chains that were just written. The caller knows
// that nobody changed them since. Without this, netguard would write a rule again and again if
// the kernel gives it back in an unknown form.
func (f *filter) learn(wrote map[string]string, s *tableState) {
	for chain, want := range wrote {
		if got, ok := s.rules[chain]; ok && got != want {
			if len(f.learned) >= maxLearned {
				clear(f.learned)
			}
			f.learned[[2]string{chain, got}] = want
			s.rules[chain] = want
		}
	}
}

// known gives the text with which a chain was written, if learn has seen the kernel's.
func (f *filter) known(chain, got string) string {
	if want, ok := f.learned[[2]string{chain, got}]; ok {
		return want
	}
	return got
}

// written gives the texts of the listed chains.
func written(all map[string]string, chains []string) map[string]string {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(chain, _ string) bool { return !slices.Contains(chains, chain) })
	return out
}
