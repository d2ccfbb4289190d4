package harness

import "netguard/integration/remains"

// Reaper returns the process id of this process's reaper.
func Reaper() int { s, _ := theSession(); return s.reaper }

// Record returns what is on record of the engine.
func (e *Engine) Record() remains.Record { return e.record }
