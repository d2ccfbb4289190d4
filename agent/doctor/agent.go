package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"netguard/agent/config"
	"netguard/agent/control"
)

// readAgent asks the agent at the socket.
func readAgent(ctx context.Context, socket string) Agent {
	a := Agent{Socket: socket}
	client := control.NewClient(socket)
	v, err := client.Version(ctx)
	if err == nil {
		a.Version = v.Version
		a.Status, err = client.Status(ctx)
	}
	if err != nil {
		a.Err = err.Error()
		_, there := os.Lstat(socket)
		a.Absent = errors.Is(there, fs.ErrNotExist)
		locks, _ := os.ReadFile("/proc/locks")
		a.Holder = holder(string(locks), socket+".lock")
	}
	if socket != config.DefaultSocket {
		if _, err := control.NewClient(config.DefaultSocket).Version(ctx); err == nil {
			a.Other = config.DefaultSocket
		}
	}
	return a
}

// holder finds the process that has locked a file; 0 if none has. It does not try the lock
// itself: that could stop an agent that is just starting.
func holder(locks, name string) int {
	var file unix.Stat_t
	if unix.Lstat(name, &file) != nil {
		return 0
	}
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(file.Dev), unix.Minor(file.Dev), file.Ino)
	for line := range strings.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 4711 00:1a:1234 0 EOF
		words := strings.Fields(line)
		if len(words) >= 6 && words[1] == "FLOCK" && words[3] == "WRITE" && words[5] == id {
			pid, _ := strconv.Atoi(words[4])
			return pid
		}
	}
	return 0
}

// maxFindings bounds how many of an agent's findings are told.
const maxFindings = 20

func aboutAgent(c *checks, f Facts) {
	const name = "agent.running"
	a := f.Agent
	if a.Other != "" {
		c.warn("agent.other", "keep one agent on a host: end the other, or name its socket with --socket", "another agent answers at %s", a.Other)
	}
	if a.Err != "" {
		switch {
		case a.Holder > 0:
			c.fail(name, fmt.Sprintf("wait if it starts or stops; else see its log, and end process %d", a.Holder),
				"process %d holds %s.lock and does not answer", a.Holder, a.Socket)
		case a.Absent && f.Firewall.enforced():
			c.warn(name, "systemctl start netguard; or netguard cleanup, to take the rules away",
				"no agent runs, and the rules of an earlier one are in force: %s", f.newcomers())
		case a.Absent:
			c.warn(name, "systemctl start netguard, or name its socket with --socket", "no agent listens at %s: nothing is enforced", a.Socket)
		default:
			c.fail(name, "see its log: journalctl -u netguard", "%s", a.Err)
		}
		return
	}
	c.ok(name, "at %s, mode %s, %s", a.Socket, a.Status.Mode, count(len(a.Status.Endpoints), "endpoint", "endpoints"))
	if a.Version != f.Version {
		c.warn("agent.version", "restart the agent after an upgrade: systemctl restart netguard", "the agent is %s, this is %s", a.Version, f.Version)
	} else {
		c.ok("agent.version", "%s, as this", a.Version)
	}
	aboutAdmission(c, f)
	wrong := []string{}
	for _, e := range a.Status.Endpoints {
		if e.Wrong() {
			wrong = append(wrong, fmt.Sprintf("%s (%s)", e.Container, e.Network))
		}
	}
	const sync = "agent.in_sync"
	switch {
	case a.Status.Starting:
		c.skip(sync, "the agent has just started, and has not read Docker's containers yet: look again in a moment")
	case !a.Status.Docker.Connected:
		c.warn(sync, "start dockerd; the agent connects by itself", "the agent does not reach Docker: %s", f.newcomers())
	case !a.Status.InSync:
		c.warn(sync, "look again in some seconds; if it stays so, see netguard status and the agent's log", "the kernel does not hold all that the agent wants")
	default:
		c.ok(sync, "the kernel holds what the agent wants")
	}
	if len(wrong) > 0 {
		c.warn("agent.endpoints", "netguard status tells why, and what to do", "%s not as declared: %s", count(len(wrong), "endpoint is", "endpoints are"), some(wrong))
	}
	for i, finding := range a.Status.Findings {
		if i == maxFindings {
			c.warn("agent.finding", "see netguard status", "%d more", len(a.Status.Findings)-i)
			break
		}
		c.warn("agent.finding", "", "%s", finding)
	}
}

// newcomers says what becomes of containers that start now and that no agent admits.
func (f Facts) newcomers() string {
	switch {
	case f.Firewall.Err != "":
		return "what becomes of containers that start now cannot be told: " + f.Firewall.Err
	case f.Firewall.closed():
		return "admission is closed: containers that start now can neither send nor receive"
	}
	return "admission is open: nothing is enforced for containers that start now"
}

func aboutAdmission(c *checks, f Facts) {
	const name = "agent.admission"
	switch f.Agent.Status.Admission {
	case "closed":
		text := "closed: a container can neither send nor receive before all its rules are in the kernel, nor while no agent runs"
		if g := f.Guard; g.Untried == "" && g.Err == "" && !g.Features.BridgeNames {
			text += " (this kernel has no CONFIG_NFT_BRIDGE_META: see docs/guard.md for what two containers that both started while no agent ran can still exchange)"
		}
		c.ok(name, "%s", text)
	case "open":
		const open = "open: a container sends and receives before its rules are in the kernel, and nothing is enforced for those that start while no agent runs"
		if f.Agent.Status.Mode == control.ModeMonitor {
			c.ok(name, "%s (mode monitor)", open)
			return
		}
		c.warn(name, "take admission: open out of the configuration, unless you want it so", open)
	default:
		c.skip(name, "the agent has not written anything yet")
	}
}

// aboutFiles is about the configuration and the policies.
func aboutFiles(c *checks, f Facts) {
	for _, files := range []struct {
		name, without, remedy string
		Files
	}{
		{"files.configuration", "the defaults hold", "mend the file; a running agent keeps what it read before", f.Config},
		{"files.policies", "there are none", "mend the files; netguard policy validate tells each fault", f.Policies},
	} {
		switch {
		case len(files.Faults) > 0:
			c.fail(files.name, files.remedy, "%s", strings.Join(files.Faults, "\n"))
		case files.Absent:
			c.ok(files.name, "%s is not there: %s", files.Path, files.without)
		case files.Count != "":
			c.ok(files.name, "%s: %s", files.Path, files.Count)
		default:
			c.ok(files.name, "%s", files.Path)
		}
	}
}
