// Package netpolicy decides who may talk to whom. It decodes policies from files and labels,
// compiles them with the endpoints of the host into a rule set, and tells what a rule set does
// with a connection.
//
// It is pure: it reads no file, asks no clock and knows neither Docker nor the kernel. It
// promises:
//
//   - A Policy to enforce (Catalog.Policies) is valid, whatever the text held.
//   - Each fault in a text is reported with its place. Faults beyond strictyaml.MaxFaults are
//     only counted.
//   - The same input gives the same rule set, byte for byte.
//   - A missing peer or address family never makes a rule wider.
package netpolicy
