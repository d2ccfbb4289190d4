package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"netguard/internal/apart"
	"netguard/netpolicy"
)

// SampleGroup is the group of nfnetlink_log that gets a few of the refused packets. Nobody has to
// listen there.
const SampleGroup = 0x4e48

// sampleLimit is how many packets a rule hands over, so that a flood costs little. It is one
// limit for all containers. The counters tell who is denied how often.
const sampleLimit = "20/sec"

// Refusal says which rule refused a packet.
type Refusal struct {
	// Side is the end of the packet whose container the refusal counts for.
	Side netpolicy.Side
	// Direction is the direction of the policies that refuse the packet.
	Direction netpolicy.Direction
}

// prefix begins each sample of the refusal. It has only letters and dashes, so no version of
// iptables puts quotes around it.
func (r Refusal) prefix() string { return "netguard-" + r.Side.String() + "-" + r.Direction.String() }

// RefusalOf reads the prefix of a sample.
func RefusalOf(prefix string) (Refusal, bool) {
	for _, side := range []netpolicy.Side{netpolicy.Src, netpolicy.Dst} {
		for _, direction := range netpolicy.Directions {
			if r := (Refusal{side, direction}); r.prefix() == prefix {
				return r, true
			}
		}
	}
	return Refusal{}, false
}

// sample words the rule that hands a packet over.
func (r Refusal) sample() string {
	return "-m limit --limit " + sampleLimit + " -j NFLOG --nflog-prefix " + r.prefix() +
		" --nflog-group " + strconv.Itoa(SampleGroup) + " --nflog-size 128"
}

// ErrNoSamples says that refused packets cannot be handed over here.
var ErrNoSamples = errors.New("iptables cannot hand packets over (match limit, target NFLOG; kernel modules nfnetlink_log and xt_NFLOG)")

// probeChain is the chain that ProbeSamples writes and removes. Nothing leads there.
const probeChain = "NG-PROBE"

// ProbeSamples tells whether Options.Samples can be used, by writing such a rule. It writes in a
// network namespace made for that. If that is not permitted, it writes in this one, and leaves
// nothing behind. The error is ErrNoSamples if the rule cannot be written.
func (p *Programs) ProbeSamples(ctx context.Context) error {
	backends, families := p.backends(new(int)), 1
	if p.ipv6 {
		families = 2
	}
	// A question to a backend that nobody uses would load its kernel modules.
	backends = slices.DeleteFunc(backends, func(b *backend) bool {
		return b != backends[0] && b.kind == Legacy && !b.present(0) && !b.present(1)
	})
	err := apart.Run(func() error { return trySamples(ctx, backends, families, true) })
	if errors.Is(err, apart.ErrNoNamespace) {
		err = trySamples(ctx, backends, families, false)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoSamples, err)
	}
	return nil
}

// trySamples writes a rule with each backend that can write anything. If the namespace is apart,
// the rule stays there, and ends with the namespace.
func trySamples(ctx context.Context, backends []*backend, families int, apart bool) error {
	can := false
	var faults []error
	for _, b := range backends {
		for i := range families {
			try := func(rule string) error {
				if apart {
					return b.write(ctx, i, transaction([]chain{{probeChain, []string{rule}}}, nil))
				}
				return b.try(ctx, i, rule)
			}
			err := try(Refusal{}.sample())
			if err == nil {
				can = true
			} else if try("-j RETURN") == nil {
				return err
			}
			faults = append(faults, err)
		}
	}
	if !can {
		return errors.Join(faults...)
	}
	return nil
}

// try writes a rule, and leaves the table as it was.
func (b *backend) try(ctx context.Context, i int, rule string) error {
	there := b.present(i)
	if b.kind == NFT {
		var err error
		if _, there, err = chainsOf(i); err != nil {
			return err
		}
	}
	chains := []chain{{probeChain, []string{rule}}}
	if !there {
		chains = append([]chain{{name: madeMark}}, chains...)
	}
	if err := b.write(ctx, i, transaction(chains, nil)); err != nil {
		return err // nothing was written
	}
	if there {
		return b.write(ctx, i, transaction(nil, []string{"-F " + probeChain, "-X " + probeChain}))
	}
	t, err := b.read(ctx, i)
	if err != nil {
		return err
	}
	return (&Driver{}).clear(ctx, b, i, t)
}

// directionOf is the direction of the policies that a drop comes from.
func directionOf(o netpolicy.Origin) netpolicy.Direction {
	switch o.Stage {
	case netpolicy.FileEgress, netpolicy.LabelEgress:
		return netpolicy.Egress
	case netpolicy.FileIngress, netpolicy.LabelIngress:
		return netpolicy.Ingress
	}
	return o.Direction
}
