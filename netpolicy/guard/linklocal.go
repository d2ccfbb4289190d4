package guard

// linkLocalChain is a chain of the table "inet netguard" for what comes in by a veth
// itself.
const (
	linkLocalChain = "link-local"
	// linkLocalPriority is before the kernel puts fragments together (-400).
	linkLocalPriority = -450
)

// toLinkLocalGroup holds for frames to 01:80:c2:00:00:00 to :0f.
var toLinkLocalGroup = etherTo.maskedIs([]byte{255, 255, 255, 255, 255, 0xf0}, []byte{1, 0x80, 0xc2, 0, 0, 0})

// linkLocalGroups refuses IP in frames to link-local groups (01:80:c2:00:00:00 to :0f,
// LLDP among them) that come in by a veth.
//
// A bridge gives such frames to the host as if they had come in by the port itself, and
// those for LLDP pass no hook of the bridge on the way (br_handle_frame). A port that the
// agent has seen forwards them like any others (see settings.group), so that the rules
// before the bridge see them. A port that nobody has seen yet does not. No honest packet
// of IP is in such a frame, whosever veth it is, so that the rule needs to know no bridge
// and holds without an agent.
func (b *builder) linkLocalGroups() {
	b.add(linkLocalChain, "IP for a link-local group", goTo("refuse"), inKind.is(ifname("veth")...), toLinkLocalGroup)
}
