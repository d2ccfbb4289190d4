package docker

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

// swarm is what the engine says of its Swarm.
func (s *shop) swarm() swarm.Info {
	if s.dataPort == 0 {
		return swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}
	}
	return swarm.Info{LocalNodeState: swarm.LocalNodeStateActive, Cluster: &swarm.ClusterInfo{DataPathPort: s.dataPort}}
}

// TestDataPort: the port of a Swarm that the host left is not taken for that of the next one.
func TestDataPort(t *testing.T) {
	s := newShop(0, 0)
	s.dataPort = 5000
	e := s.open(t)
	full := Hint{Full: true}
	for _, c := range []struct {
		port uint32
		hint Hint
		want uint16
	}{
		{5000, full, 5000},
		{5000, full, 5000},
		{0, Hint{Networks: map[string]struct{}{"o": {}}}, 0}, // the host leaves the Swarm
		{6000, full, 0},    // and joins another one
		{6000, full, 6000}, // it is asked about as soon as an overlay is known
		{0, full, 0},
		{7000, full, 0},
		{7000, full, 7000},
	} {
		s.mu.Lock()
		s.dataPort = c.port
		s.mu.Unlock()
		if v, err := e.Refresh(t.Context(), c.hint); err != nil || v.DataPort != c.want || v.InSwarm() != (c.port > 0) {
			t.Errorf("in a Swarm with port %d: %d, %t, %v; want %d", c.port, v.DataPort, v.InSwarm(), err, c.want)
		}
	}
}
