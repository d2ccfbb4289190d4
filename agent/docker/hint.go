package docker

import (
	"time"

	"github.com/docker/docker/api/types/events"
)

// maxHint is how many names a hint holds before it says "read all".
const maxHint = 1024

// Hint names what should be read again. The zero Hint names nothing.
type Hint struct {
	Full       bool // all of it
	Containers map[string]struct{}
	Networks   map[string]struct{}
}

// Empty says that there is nothing to read.
func (h Hint) Empty() bool { return !h.Full && len(h.Containers) == 0 && len(h.Networks) == 0 }

// Merge adds what o names.
func (h *Hint) Merge(o Hint) {
	if o.Full {
		h.all()
	}
	for id := range o.Containers {
		h.container(id)
	}
	for id := range o.Networks {
		h.network(id)
	}
}

func (h *Hint) container(id string) { h.add(&h.Containers, id) }
func (h *Hint) network(id string)   { h.add(&h.Networks, id) }
func (h *Hint) all()                { *h = Hint{Full: true} }

func (h *Hint) add(to *map[string]struct{}, id string) {
	if h.Full || id == "" {
		return
	}
	if *to == nil {
		*to = map[string]struct{}{}
	}
	(*to)[id] = struct{}{}
	if len(h.Containers)+len(h.Networks) > maxHint {
		h.all()
	}
}

// watched are the events about which the engine is asked. It leaves out what
// health checks and exec make all the time.
var watched = []events.Action{
	events.ActionCreate, events.ActionStart, events.ActionRestart, events.ActionStop, events.ActionDie,
	events.ActionKill, events.ActionRename, events.ActionUpdate, events.ActionPause, events.ActionUnPause,
	events.ActionDestroy, events.ActionRemove, events.ActionConnect, events.ActionDisconnect,
}

// note adds what an event is about. Docker reports a container that stops to each of its
// networks (disconnect): they are read then, once. The view tells where a container was attached
// whose network did not report that.
func (h *Hint) note(m events.Message, v View) {
	switch m.Type {
	case events.ContainerEventType:
		switch m.Action {
		case events.ActionStop, events.ActionDestroy, events.ActionRestart:
			for _, id := range v.attached(m.Actor.ID) {
				h.network(id)
			}
		}
		h.container(m.Actor.ID)
	case events.NetworkEventType:
		h.network(m.Actor.ID)
		// Not on connect: what is needed of the container was learnt
		// when it was created, and time is short.
		if m.Action == events.ActionDisconnect {
			h.container(m.Actor.Attributes["container"])
		}
	}
}

// listedAfter is how long after a container was connected it is listed again.
const listedAfter = 500 * time.Millisecond

// connected gives the container that was put on one more network while it runs, "" of
// any other event: it may have got link-local addresses there.
func connected(m events.Message, v View) string {
	id := m.Actor.Attributes["container"]
	if m.Type == events.NetworkEventType && m.Action == events.ActionConnect && v.Container(id).Running() {
		return id
	}
	return ""
}
