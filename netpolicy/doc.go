// Package netpolicy is who may talk to whom: it decodes policies from files and
// labels, compiles them with the endpoints of the host into a rule set, and says
// what a rule set does with a connection.
//
// It is pure: it reads no file, asks no clock and knows neither Docker nor the
// kernel. It promises that a Policy it returns is valid whatever the text held,
// that every fault in a text is reported with its place, that the same input
// gives the same rule set byte for byte, and that a rule is never wider because
// a peer or an address family is missing.
package netpolicy
