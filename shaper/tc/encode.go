package tc

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/shaper"
)

const (
	rootHandle = uint32(shaper.RootMajor) << 16
	// htbVersion is the one that the kernel insists on. Classes of netguard's name
	// their quantum, so that the divisor is not used.
	htbVersion, htbDivisor = 3, 10
	// linkEthernet tells the kernel that lengths are whole frames, so that no
	// rate table need be sent (TC_LINKLAYER_ETHERNET).
	linkEthernet = 1
	// sfqPerturb is how often sfq draws a new key for its hash, in seconds.
	sfqPerturb = 10
)

// encode gives the message that makes one change of a device's own tree. direct is the length of
// HTB's queue for packets that no class takes; with 0 the kernel chooses it.
// go-tc sends such messages one by one and waits for each; a tree has dozens.
func encode(dev int, direct uint32, s shaper.Step) (netlink.Message, error) {
	var options []byte
	var err error
	switch s.Op {
	case shaper.AddRoot:
		options, err = attributesOf(func(ae *netlink.AttributeEncoder) {
			ae.Bytes(htbInit, words(htbVersion, htbDivisor, uint32(s.Default), 0, 0))
			if direct != 0 {
				ae.Uint32(htbDirectQlen, direct)
			}
		})
		if err != nil {
			return netlink.Message{}, err
		}
		return request(unix.RTM_NEWQDISC, netlink.Create|netlink.Excl, dev, rootHandle, rootParent, "htb", options)
	case shaper.AddClass, shaper.ChangeClass:
		if options, err = class(s.Class); err != nil {
			return netlink.Message{}, err
		}
		parent := rootHandle | uint32(s.Class.Parent) // 0 is the qdisc itself
		// Without NLM_F_EXCL: a class that is there is changed in place.
		return request(unix.RTM_NEWTCLASS, netlink.Create, dev, rootHandle|uint32(s.Class.Minor), parent, "htb", options)
	case shaper.AddQueue, shaper.ChangeQueue:
		flags := netlink.Create | netlink.Excl
		if s.Op == shaper.ChangeQueue {
			flags = 0
		}
		if options, err = queue(s.Queue); err != nil {
			return netlink.Message{}, err
		}
		return request(unix.RTM_NEWQDISC, flags, dev, uint32(s.Queue.Handle())<<16, rootHandle|uint32(s.Queue.Class), s.Queue.Kind, options)
	}
	return netlink.Message{}, fmt.Errorf("operation %d is not one message", s.Op)
}

// class gives the options of an HTB class: struct tc_htb_opt, and rates of 64 bits.
func class(c shaper.Class) ([]byte, error) {
	return attributesOf(func(ae *netlink.AttributeEncoder) {
		parms := append(rateSpec(c.Rate, linkEthernet), rateSpec(c.Ceil, linkEthernet)...)
		ae.Bytes(htbParms, append(parms, words(c.Burst, c.Cburst, c.Quantum, 0, c.Prio)...))
		if c.Rate >= 1<<32 {
			ae.Uint64(htbRate64, c.Rate)
		}
		if c.Ceil >= 1<<32 {
			ae.Uint64(htbCeil64, c.Ceil)
		}
	})
}

// queue gives the options of a leaf.
func queue(q shaper.Queue) ([]byte, error) {
	switch q.Kind {
	case "bfifo": // struct tc_fifo_qopt
		return words(q.Limit), nil
	case "sfq": // struct tc_sfq_qopt: the divisor and the number of flows are the kernel's
		return words(q.Quantum, sfqPerturb, q.Limit, 0, 0), nil
	case "tbf": // struct tc_tbf_qopt
		return attributesOf(func(ae *netlink.AttributeEncoder) {
			parms := append(rateSpec(q.Rate, 0), rateSpec(0, 0)...)
			ae.Bytes(tbfParms, append(parms, words(q.Limit, q.Buffer, 0)...))
			if q.Rate >= 1<<32 {
				ae.Uint64(tbfRate64, q.Rate)
			}
		})
	case "fq_codel":
		return attributesOf(func(ae *netlink.AttributeEncoder) {
			ae.Uint32(codelTarget, q.Target)
			ae.Uint32(codelLimit, q.Limit)
			ae.Uint32(codelInterval, q.Interval)
			ae.Uint32(codelQuantum, q.Quantum)
			ae.Uint32(codelMemory, q.Memory)
		})
	}
	return nil, fmt.Errorf("encode queue: unknown kind %q", q.Kind)
}

// rateSpec is struct tc_ratespec. A rate that needs 64 bits stands beside it.
func rateSpec(bytes uint64, linkLayer byte) []byte {
	return append([]byte{0, linkLayer, 0, 0, 0, 0, 0, 0}, words(uint32(min(bytes, 1<<32-1)))...)
}

// request is struct tcmsg with a kind and its options.
func request(typ uint16, flags netlink.HeaderFlags, dev int, handle, parent uint32, kind string, options []byte) (netlink.Message, error) {
	attributes, err := attributesOf(func(ae *netlink.AttributeEncoder) {
		ae.String(tcaKind, kind)
		ae.Bytes(tcaOptions, options)
	})
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(words(0, uint32(dev), handle, parent, 0), attributes...),
	}, err
}

func attributesOf(fill func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	fill(ae)
	return ae.Encode()
}

func words(of ...uint32) []byte {
	var out []byte
	for _, w := range of {
		out = netlinkOrder.AppendUint32(out, w)
	}
	return out
}
