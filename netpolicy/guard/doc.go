// Package guard makes a container be what Docker says it is: its frames count
// only when they arrive on its own bridge port, with its own MAC and its own
// addresses, and nothing that it sends at layer 2 can hurt its neighbours or the
// host. It holds three things in the kernel for that:
//
//   - the settings of the bridge port (locked, no learning, no flooding of
//     unknown unicast) with one static, sticky FDB entry for each own MAC;
//   - a permanent neighbour entry on the bridge for each own address, so that
//     nobody can turn the host against a container;
//   - the table "bridge netguard": one constant rule set, however many containers
//     there are, that looks ports, MACs and addresses up in sets.
//
// A Driver takes the whole wish, compares it with the kernel, applies the
// difference and reads back. It touches only the ports of the wish, the neighbour
// entries that carry its own protocol number, and its own table. What it changes
// outlives it: an agent that starts again adopts what it finds.
//
// A port of a managed bridge that the wish does not name, such as one that came while
// no agent was running, can neither send nor receive; see stranger.go and
// unknown_port.go. The tables "inet netguard", which limits connections as well, and "arp
// netguard" keep such ports from the host.
//
// What a port was set to before is kept in the comment of the port's element in
// the table's set "ports", which is as lasting as the settings themselves.
package guard
