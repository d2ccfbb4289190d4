package guard

import (
	"slices"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// SampleGroup is the group of nfnetlink_log to which a few of the refused frames go. Without a
// listener they are lost.
const SampleGroup = 0x4e47

const (
	// samplePrefix begins the prefix of each sample; the kind of violation follows.
	samplePrefix = "netguard "
	// sampleLength is enough for the headers of all that is looked at.
	sampleLength = 128
	// sampleRate and sampleBurst are how many samples a second one port gets for one kind.
	// So a flood costs little and hides no other port's frames.
	sampleRate, sampleBurst = 1, 3
)

// Kinds are the kinds of violations, by the names that they have in Violations, in
// prefixes of samples and in `netguard status`.
var Kinds = []string{"mac", "arp", "ip", "nd", "dhcp", "ethertype", "storm", "connections", "checksum", "fragments"}

// String gives the name of a kind of violation.
func (k kind) String() string { return strings.TrimPrefix(refusals[k], "refuse-") }

// SampleKind gives the kind that the prefix of a sample names.
func SampleKind(prefix string) (string, bool) {
	k, ok := strings.CutPrefix(prefix, samplePrefix)
	return k, ok && slices.Contains(Kinds, k)
}

// sample hands the beginning of a frame to a listener, unless there were too many samples of
// its port and kind. Without a listener this costs next to nothing.
func sample(k kind) match {
	return match{
		inPort.load(register(0)),
		&expr.Immediate{Register: register(1), Data: binaryutil.NativeEndian.PutUint32(uint32(k))},
		&expr.Dynset{SrcRegKey: register(0), SetName: setSamples, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: meterLife,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: sampleRate, Unit: expr.LimitTimeSecond, Burst: sampleBurst}}},
		&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group: SampleGroup, Snaplen: sampleLength, Data: []byte(samplePrefix + k.String())},
	}
}
