package harness

// FaultyBinary builds netguard with the hooks of internal/fault. With them, an agent
// fails or ends at the write to the kernel that its environment names.
func (e *Engine) FaultyBinary() string {
	e.tb.Helper()
	binary, err := e.session.build("netguard/cmd/netguard", "faultinject")
	if err != nil {
		e.tb.Fatalf("%v", err)
	}
	return binary
}
