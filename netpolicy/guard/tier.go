package guard

// Tier names how much of the guard the kernel has. Missing says what it lacks.
func (f Features) Tier() string {
	switch {
	case f.Filter && f.Locked && f.Sticky && f.Prefixes && f.Limits:
		return TierFull
	case f.Filter && f.Locked && f.Sticky && f.Prefixes:
		return "full, without limits of connections"
	case f.Filter && f.Locked && f.Sticky:
		return "full, without prefixes"
	case f.Filter && f.Sticky:
		return "without locked ports"
	case f.Filter && f.Locked:
		return "without sticky entries"
	case f.Filter:
		return "filter only"
	case f.Locked || f.Sticky:
		return TierPorts
	}
	return TierNone
}

// The best tier, and those with which nothing filters what containers send.
const (
	TierFull  = "full"
	TierPorts = "ports only"
	TierNone  = "none"
)
