// Package shaper decides which bandwidth each endpoint gets and which qdiscs,
// classes and queues carry that out. It is pure: it reads labels and an
// operator's limits, and gives values that the driver in shaper/tc writes to the
// kernel. It knows neither the kernel nor Docker.
//
// Ingress and egress are as the container sees them: ingress is what it
// receives, egress what it sends.
package shaper
