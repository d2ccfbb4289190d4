// Package harness runs real Docker engines for tests, benchmarks and demos, each
// in a network namespace of its own, with its own data, socket and cgroup.
//
//	e := harness.Start(t)
//	e.Network("backend", harness.Subnet("10.7.0.0/24"))
//	db := e.Run("db", harness.On("backend"), harness.Doing("serve", "tcp", ":5432"))
//	web := e.Run("web", harness.On("backend"))
//	agent := e.Agent()
//	agent.AwaitStatus("both are admitted", harness.AllAdmitted)
//	web.Inside().CanReach("tcp", db.Addr("backend", 5432))
//
// It promises that no packet leaves the machine, that the machine's own firewall
// and Docker stay untouched, that several engines of several test processes live
// side by side, and that nothing is left when the test is over, however it ended
// (see package remains).
//
// Functions that take or hold a TB end the test when they fail. Call [Engine.For]
// for an engine that reports to a subtest.
package harness
