// Package checksum is a BPF program at the entrance of a bridge port. It finds the
// frames that the kernel still writes into, or cuts up, after the guard and the
// policies have judged them.
//
// A sender may leave a transport checksum to be filled in later: the kernel keeps, with
// the frame, where it begins and where its two bytes go. Honest stacks name their own
// TCP, UDP or SCTP header. An AF_PACKET socket with PACKET_VNET_HDR, for which CAP_NET_RAW
// is enough, names any two bytes: behind the verdict they become another port or another
// address. A sender may also leave it to the kernel to cut a frame into segments, of one
// byte each if it says so. Only a BPF program sees either: no rule of iptables or nftables
// can read these fields.
//
// The program promises that behind it
//
//   - a checksum that is still to be filled in is that of the frame's own transport
//     header, or lies in the payload of a tunnel that the sender's own kernel made;
//   - a fragment has no such checksum, and is not to be cut up;
//   - a frame that is to be cut up has the protocol that its header names, and gives no more
//     segments than an honest stack makes.
//
// The program keeps no state and counts nothing. It puts Mark on a frame that breaks this
// promise. By Mark the guard's rules count the frame, show it and refuse it. In enforce mode the
// program also spoils the frame: the frame loses its type, and all that follows its headers. So
// no receiver accepts it, even if no rule refuses it.
package checksum
