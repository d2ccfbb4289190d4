package netpolicy

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// Names are made of a fixed prefix, letters of our own and a hash, never of a
// user's text. ipset allows 31 bytes for a set's name, iptables 28 for a
// chain's.
const (
	setPrefix4  = "ng4-"
	setPrefix6  = "ng6-"
	ChainPrefix = "NG-"

	generationLen = 12 // 60 bits
	chainHashLen  = generationLen
	setHashLen    = 16 // 80 bits
)

// What a set is about, as a letter of its name.
const (
	letterSelect     = "s" // containers of a selector, in an allow
	letterDeny       = "d" // containers of a selector, in a deny
	letterNet        = "n" // CIDRs
	letterContainers = "c" // all containers
	letterAway       = "a" // what is a container's on its bridge alone
	letterIsolated   = "i" // endpoints that a stage closes
	letterPublished  = "p" // published ports
	letterBlock      = "b" // what many rules ask for, in blocks
)

// The chains of each path: a code that stands in their names. The first is the
// entry.
const (
	codeForward      = "F"
	codeInput        = "I"
	codePublished    = "P" // from Input, towards a published port
	codeOutput       = "O"
	codeEgress       = "E"
	codeEgressLabel  = "EL"
	codeIngress      = "I"
	codeIngressLabel = "IL"
)

var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// digest is a hash of a list of parts. It also depends on where one part ends and the next
// begins.
func digest(length int, parts ...string) string {
	var room [256]byte // most are short
	text := room[:0]
	for _, p := range parts {
		text = append(binary.LittleEndian.AppendUint64(text, uint64(len(p))), p...)
	}
	return encoded(length, sha256.Sum256(text))
}

func encoded(length int, sum [sha256.Size]byte) string {
	var text [64]byte
	lower.Encode(text[:], sum[:])
	return string(text[:length])
}

// SetPrefix begins the name of each set of a family.
func SetPrefix(ipv6 bool) string {
	if ipv6 {
		return setPrefix6
	}
	return setPrefix4
}

// contentSet names a set by what it is about. All policies and generations that mean the same use
// the same name.
func contentSet(ipv6 bool, letter string, content ...string) string {
	return SetPrefix(ipv6) + letter + "-" + digest(setHashLen, content...)
}

// scopedSet names a set of a stage by whom the stage closes.
func scopedSet(ipv6 bool, letter string, s Stage, scope string) string {
	return SetPrefix(ipv6) + letter + stageCode(s) + "-" + scope
}

// chainName names a chain by what it says. The chains that it leads to are part of that.
func chainName(code string, rules []Rule) string {
	h := sha256.New()
	var room [512]byte
	for i := range rules {
		h.Write(rules[i].appendTo(room[:0]))
	}
	return ChainPrefix + code + "-" + encoded(chainHashLen, [sha256.Size]byte(h.Sum(room[:0])))
}

// chainCode gives what stands in a chain's name for its path and stage.
func chainCode(name string) string {
	code, _, _ := strings.Cut(strings.TrimPrefix(name, ChainPrefix), "-")
	return strings.TrimRight(code, "0123456789") // digits number the blocks of a stage
}

// OwnsSet tells whether a set of this name can only be one of a rule set's.
func OwnsSet(name string) bool {
	for _, prefix := range []string{setPrefix4, setPrefix6} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		kind, hash, ok := strings.Cut(rest, "-")
		return ok && len(kind) > 0 && len(kind) <= 3 && strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz") == "" &&
			(hashed(hash, setHashLen) || hashed(hash, generationLen))
	}
	return false
}

// OwnsChain tells whether a chain of this name can only be one of a rule set's.
func OwnsChain(name string) bool {
	rest, ok := strings.CutPrefix(name, ChainPrefix)
	code, hash, whole := strings.Cut(rest, "-")
	letters := chainCode(name)
	return ok && whole && len(letters) > 0 && len(letters) <= 3 && len(code)-len(letters) <= 6 && strings.Trim(letters, "EFILOP") == "" &&
		hashed(hash, chainHashLen)
}

func hashed(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
