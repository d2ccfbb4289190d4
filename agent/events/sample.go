package events

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
)

// Sample is the beginning of a packet that was refused.
type Sample struct {
	Prefix string // what the rule that handed it over says
	// In and Out are the ifindexes of the devices, PortIn and PortOut those of the
	// bridge's ports where In or Out is a bridge. 0 is none.
	In, Out, PortIn, PortOut int
	// Link is the Ethernet header, if there is one; Packet begins behind it.
	Link, Packet []byte
	// VLAN is a tag that the kernel took out of the header.
	VLAN *VLAN
	// Missing is how many samples before this one were lost.
	Missing uint64

	sequence uint32
}

// VLAN is a tag: 802.1Q is 0x8100.
type VLAN struct {
	Protocol uint16
	ID       uint16
}

// Port is the ifindex of the bridge port that the packet came in by.
func (s *Sample) Port() int {
	if s.PortIn != 0 {
		return s.PortIn
	}
	return s.In // a kernel without CONFIG_BRIDGE_NETFILTER
}

var errShort = errors.New("message is too short")

// parseSample reads a message of nfnetlink_log.
func parseSample(data []byte) (Sample, error) {
	var s Sample
	if len(data) < familyHeaderSize {
		return s, errShort
	}
	ad, err := netlink.NewAttributeDecoder(data[familyHeaderSize:])
	if err != nil {
		return s, fmt.Errorf("parse sample: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case attrPrefix:
			s.Prefix = ad.String()
		case attrIn:
			s.In = int(int32(ad.Uint32()))
		case attrOut:
			s.Out = int(int32(ad.Uint32()))
		case attrPortIn:
			s.PortIn = int(int32(ad.Uint32()))
		case attrPortOut:
			s.PortOut = int(int32(ad.Uint32()))
		case attrPayload:
			s.Packet = ad.Bytes()
		case attrHeader:
			if s.Link == nil {
				s.Link = ad.Bytes()
			}
		case attrLink:
			s.Link = ad.Bytes() // the header as it came; attrHeader has it as it would be sent
		case attrVLAN:
			s.VLAN = &VLAN{}
			ad.Nested(s.VLAN.parse)
		case attrSequence:
			s.sequence = ad.Uint32()
		}
	}
	if err := ad.Err(); err != nil {
		return s, fmt.Errorf("parse sample: %w", err)
	}
	return s, nil
}

func (v *VLAN) parse(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case vlanProto:
			v.Protocol = ad.Uint16()
		case vlanTag:
			v.ID = ad.Uint16() & 0xfff
		}
	}
	return ad.Err()
}
