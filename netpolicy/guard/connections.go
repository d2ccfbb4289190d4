package guard

import (
	"fmt"
	"strconv"

	"netguard/internal/label"
)

// LabelConnections is the label that ParseConnections reads.
const LabelConnections = label.Connections

// DefaultConnections is how many connections a container may have open at a time,
// if nobody says otherwise: a quarter of the host's table as it mostly is.
const DefaultConnections = 65536

// MaxConnections is the greatest limit that can be written.
const MaxConnections = 1 << 24

// ParseConnections reads the label netguard.guard.connections: a number.
func ParseConnections(label string) (uint32, error) {
	n, err := strconv.ParseUint(label, 10, 32)
	if err != nil || n == 0 || n > MaxConnections {
		return 0, fmt.Errorf("label %s is %.60q: it is how many connections the container may have open at a time, a number from 1 to %d, such as 1000", LabelConnections, label, MaxConnections)
	}
	return uint32(n), nil
}

// Within gives the lowest of the operator's limit and the asked limits. It also tells whether an
// asked limit is above the operator's. 0 means that the operator sets no limit.
func Within(operator uint32, asked ...uint32) (limit uint32, above bool) {
	limit = operator
	for _, n := range asked {
		above = above || operator != 0 && n > operator
		if limit == 0 || n < limit {
			limit = n
		}
	}
	return limit, above
}
