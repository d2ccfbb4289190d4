// Package iptables brings the kernel's iptables and ipset to a
// netpolicy.RuleSet, reads them back, and takes everything away again.
//
// It takes the whole wish, never deltas: twice is once, a second Driver adopts
// what it finds without a change, and whatever somebody else broke is repaired.
// It only subtracts: each of its rules drops a packet or returns it to whoever
// would have had it anyway. It touches its own chains (NG-…), its own sets (ng4-…,
// ng6-…) and the jumps to its own chains, and nothing else.
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
//	  RETURN what the host says to itself (NG-OUTPUT)
//	  -g     NG-STRAY, which drops: a container's address on the wrong device
//	  -g     errors (ICMP) that a container sends which may not send: the entry chain
//	  DROP   what would open again, from the server's side, one that was cut
//	  RETURN neighbour discovery and multicast listener messages (IPv6)
//	  -g, -j TCP that is entered from the middle as a bridge begins: its mirror (NG-FORWARD)
//	  -j     the entry chain of the generation
//
// Empty chains say what there is to know of it: NG-FORMAT-n the number of its form,
// NG-MADE and NG-MADE-… what of the table was not there before.
//
// A generation's chains are written next to the old ones, in one transaction a
// family; one more transaction fills the three chains anew and removes the old
// generation. At no moment is there a packet that meets neither, or half of
// one. Members of sets change by netlink alone, in the order of
// netpolicy.Family.Changes: a container that comes or goes is no fork and no
// rule.
//
// A drop is two rules: the one before it counts for the container in a set with
// counters, so that no container has a rule of its own.
//
// # What a look costs
//
// Verify forks only where a table changed: of nf_tables the number of the last change
// and the handles of rules tell, of the legacy backend the bytes of the table. Members
// of sets are summed up as the kernel lists them, and kept only where the sum is another
// one. Glance asks for less: for how many members and, of the legacy backend, how many
// rules there are. Cut goes over the connections that the last changes may be about.
//
// # Connections that are cut
//
// Deleting the entry of a connection in the kernel's table is not enough: the
// client's next packet is judged by policy again, but the server's would open
// the connection from its side. Cut therefore notes client, port and server in
// a set that the three chains refuse. They do so after, not before, they let
// pass what belongs to a connection that exists: an entry that is deleted is
// none, and a new connection that policy allows is not hit by what was noted of
// an older one.
//
// The client's side needs no note: policy refuses it. A note about both sides would
// refuse whoever gets the address next.
//
// Connections within a bridge are older than the kernel's table when the bridge
// begins to hand over its frames. Of TCP the ports tell who is the client (see
// midstream.go), in the rules for a minute, and in Cut alike. Of UDP nothing does: a server that
// goes on sending without being asked, and may send to the client by policy, is
// taken for one that opens a connection of its own.
//
// # Where it works
//
// All of a Driver's methods work in the network namespace of the calling thread,
// which must be the one that Open was called in. A Driver is for one goroutine.
package iptables
