// Package iptables brings the kernel's iptables and ipset to a netpolicy.RuleSet, reads
// them back, and takes everything away again.
//
// A Driver takes the whole wish. Applying twice is applying once. A second Driver adopts what
// it finds without a change, and repairs what another program broke. The package only
// subtracts: each of its rules drops a packet, or returns it to the rules that would have had
// it anyway. It touches its own chains (NG-…), its own sets (ng4-…, ng6-…), the jumps to its
// own chains, and nothing else.
//
// # What is in the kernel
//
// In the filter table of each family:
//
//	DOCKER-USER (or FORWARD)  -j NG-FORWARD
//	FORWARD (beside it)       -m conntrack --ctstate NEW -j NG-FORWARD
//	INPUT           ! -i lo   -j NG-INPUT
//	OUTPUT                    -j NG-OUTPUT
//
//	NG-FORWARD, NG-INPUT, NG-OUTPUT, each:
//	  RETURN what belongs to a connection that exists
//	  RETURN what the host sends to itself (NG-OUTPUT)
//	         packets with an address that no container has are counted (see vacant.go)
//	  -g     NG-STRAY, which drops: a container's address on the wrong device
//	  -g     errors (ICMP) of a container that may not send: the entry chain
//	  DROP   what would open a cut connection again from the server's side
//	  RETURN neighbour discovery and multicast listener messages (IPv6)
//	  -g, -j TCP from the middle of a connection, while a bridge begins: its mirror (NG-FORWARD)
//	  -j     the entry chain of the generation
//
// The names of empty chains keep notes: NG-FORMAT-n has the number of the form, NG-MADE and
// NG-MADE-… say which parts of the table netguard made.
//
// The name of a chain says what is in it, so two generations share the chains that are the same
// in both. For each family, one transaction writes the other chains of a new generation beside
// the old ones. One more fills the three chains anew and removes the old generation. Every packet
// meets one generation as a whole. Members of sets change by netlink alone, in the order of
// netpolicy.Family.Changes: a container that comes or goes costs no fork and no rule.
//
// A drop is two rules. The first counts for the container in a set with counters, so no
// container needs a rule of its own.
//
// # What a look costs
//
// Verify forks only where a table changed. It learns that from the handles of rules (nf_tables),
// or from the bytes of the table (legacy). It sums up the members of sets while the kernel lists
// them, and keeps them only where the sum differs. Glance costs less: it compares how many
// members and, for the legacy backend, how many rules there are. Cut goes over the connections
// that the last changes may concern. The kernel goes through its whole table for that, so Cut
// first finds out whether there can be any (see vacant.go).
//
// # Connections that are cut
//
// Cut deletes the entry of a connection from the kernel's table, so policy judges the
// client's next packet again. The server's next packet would open the connection from the
// other side. Cut therefore notes client, port and server in a set, which the three chains
// refuse. They refuse it after they let existing connections pass. So the note of an old
// connection does not hit a new one that policy allows. Cut notes nothing of the client's
// side: policy refuses that already, and a note of both addresses would refuse whoever gets
// the client's address next.
//
// Connections within a bridge are older than the kernel's entries of them, where the bridge has
// just begun to hand over its frames. For TCP the ports tell who is the client (see
// midstream.go), in the rules for a minute and in Cut. For UDP nothing tells. If a server goes on
// sending, and policy lets it send to the client, Cut takes that for a connection that the server
// opens.
//
// # Where it works
//
// All methods of a Driver work in the network namespace of the calling thread, which must be
// the one that Open was called in. A Driver is for one goroutine.
package iptables
