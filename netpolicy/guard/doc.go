// Package guard binds each container to what Docker says of it. Its frames pass only when
// they arrive on its own bridge port, with its own MAC and its own addresses. Nothing that it
// sends at layer 2 hurts its neighbours or the host. The package writes three things for that:
//
//   - the settings of the bridge port (locked, no learning, no flooding of unknown unicast),
//     with one static, sticky FDB entry for each own MAC;
//   - a permanent neighbour entry on the bridge for each own address, so that nobody redirects
//     what the host sends to a container;
//   - the table "bridge netguard": one rule set, whose size does not depend on the number of
//     containers. It looks up ports, MACs and addresses in sets.
//
// A Driver gets the whole wish. It compares the wish with the kernel, writes the difference,
// and reads back. It changes only the ports of the wish, the neighbour entries with its own
// protocol number, and its own tables. What it writes stays when it ends: an agent that starts
// again adopts what it finds.
//
// An unknown port is on a managed bridge, and the wish does not name it: it came while no agent
// was running, for example. It can neither send nor receive; see unknown_port_rules.go and
// unknown_port.go. Two more tables keep such ports from the host: "inet netguard", which also
// limits connections, and "arp netguard".
//
// The settings that a port had before are in the comment of its element in the set "ports".
// They last as long as the settings themselves.
package guard
