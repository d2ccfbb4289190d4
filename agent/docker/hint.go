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

// watched are the events that the agent asks for. Others are left out: health checks and exec
// make them all the time.
var watched = []events.Action{
	events.ActionCreate, events.ActionStart, events.ActionRestart, events.ActionStop, events.ActionDie,
	events.ActionKill, events.ActionRename, events.ActionUpdate, events.ActionPause, events.ActionUnPause,
	events.ActionDestroy, events.ActionRemove, events.ActionConnect, events.ActionDisconnect,
}

// note adds what an event is about. When a container stops, Docker reports a disconnect for
// each of its networks: each is read then, once. If a network did not report it, the view still
// lists the container there. The events stop, destroy and restart add such networks.
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
		// Not on connect: the container was read when it was created, and now time is short.
		if m.Action == events.ActionDisconnect {
			h.container(m.Actor.Attributes["container"])
		}
	}
}

// listedAfter is how long after a container was connected it is listed again.
const listedAfter = 500 * time.Millisecond

// connected gives the container that an event attached to one more network while it runs; ""
// for any other event. The container may have got link-local addresses there.
func connected(m events.Message, v View) string {
	id := m.Actor.Attributes["container"]
	if m.Type == events.NetworkEventType && m.Action == events.ActionConnect && v.Container(id).Running() {
		return id
	}
	return ""
}
