package iptables

import (
	"slices"
	"strings"
)

// sameRule tells whether two rules mean the same. Versions of iptables list some things in their
// own way: protocols by name or number, flags in another order.
func sameRule(a, b string) bool {
	return a == b || canonical(a) == canonical(b)
}

var protocolNames = map[string]string{"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp", "132": "sctp"}

func canonical(rule string) string {
	words := strings.Fields(rule)
	for i := 1; i < len(words); i++ {
		switch words[i-1] {
		case "-p":
			if name, ok := protocolNames[words[i]]; ok {
				words[i] = name
			}
		case "--ctstate":
			words[i] = sortedList(words[i])
		case "--tcp-flags":
			words[i] = sortedList(words[i])
		case "--sport", "--dport":
			if strings.HasPrefix(words[i], ":") {
				words[i] = "0" + words[i]
			}
			if strings.HasSuffix(words[i], ":") {
				words[i] += "65535"
			}
		}
	}
	return strings.Join(words, " ")
}

func sortedList(s string) string {
	list := strings.Split(s, ",")
	slices.Sort(list)
	return strings.Join(list, ",")
}
