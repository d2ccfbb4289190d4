package dockerstub

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
)

// apiVersion is that of Docker 20.10.
const apiVersion = "1.41"

func (e *Engine) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("OK")) })
	answer := func(path string, give func(*http.Request) (any, int)) {
		mux.HandleFunc("GET /{api}"+path, func(w http.ResponseWriter, r *http.Request) {
			e.mu.Lock()
			body, code := give(r)
			raw, err := json.Marshal(body)
			e.mu.Unlock()
			if err != nil {
				code = http.StatusInternalServerError
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = w.Write(raw)
		})
	}
	answer("/info", func(*http.Request) (any, int) {
		return system.Info{ServerVersion: "20.10.24+dfsg1", Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}}, http.StatusOK
	})
	answer("/version", func(*http.Request) (any, int) {
		return map[string]string{"Version": "20.10.24+dfsg1", "ApiVersion": apiVersion, "MinAPIVersion": "1.12", "Os": "linux"}, http.StatusOK
	})
	answer("/containers/json", e.list)
	answer("/containers/{id}/json", func(r *http.Request) (any, int) {
		c := e.containers[r.PathValue("id")]
		if c == nil {
			return missing("container", r)
		}
		return c.inspect(), http.StatusOK
	})
	answer("/networks", func(*http.Request) (any, int) {
		all := []network.Inspect{}
		for _, n := range e.networks {
			one := n.inspect()
			one.Containers = map[string]network.EndpointResource{}
			all = append(all, one)
		}
		return all, http.StatusOK
	})
	answer("/networks/{id}", func(r *http.Request) (any, int) {
		n := e.networks[r.PathValue("id")]
		if n == nil {
			return missing("network", r)
		}
		return n.inspect(), http.StatusOK
	})
	answer("/images/{id}/json", func(r *http.Request) (any, int) {
		return map[string]any{
			"Id": r.PathValue("id"), "Os": "linux", "Architecture": "amd64",
			"Config": map[string]any{"Labels": map[string]string{"maintainer": "shop"}},
		}, http.StatusOK
	})
	mux.HandleFunc("GET /{api}/events", e.events)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", apiVersion)
		w.Header().Set("Docker-Experimental", "false")
		w.Header().Set("Ostype", "linux")
		w.Header().Set("Server", "Docker/20.10.24+dfsg1 (linux)")
		mux.ServeHTTP(w, r)
	})
}

func missing(kind string, r *http.Request) (any, int) {
	return map[string]string{"message": "No such " + kind + ": " + r.PathValue("id")}, http.StatusNotFound
}

// list lists containers, the newest first.
func (e *Engine) list(r *http.Request) (any, int) {
	f, err := filters.FromJSON(r.URL.Query().Get("filters"))
	if err != nil {
		return map[string]string{"message": err.Error()}, http.StatusBadRequest
	}
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	before := f.Get("before")
	out := []container.Summary{}
	for i := len(e.order) - 1; i >= 0; i-- {
		c := e.order[i]
		if len(before) > 0 {
			if c.ID == before[0] {
				before = nil
			}
			continue
		}
		if f.Contains("id") && !f.Match("id", c.ID) {
			continue
		}
		if out = append(out, c.summary()); len(out) == limit {
			break
		}
	}
	return out, http.StatusOK
}

func (c *Container) settings() map[string]*network.EndpointSettings {
	s := &network.EndpointSettings{}
	if c.endpointID != "" {
		s = &network.EndpointSettings{
			NetworkID: c.network.ID, EndpointID: c.endpointID, Gateway: c.network.Gateway.String(),
			IPAddress: c.port.address.String(), IPPrefixLen: c.network.subnet.Bits(), MacAddress: macOf(c.port.address).String(),
		}
	}
	return map[string]*network.EndpointSettings{c.network.Name: s}
}

func (c *Container) summary() container.Summary {
	s := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.image, ImageID: imageID(c.image), Command: "/bin/server --port 80",
		Created: c.created.Unix(), Ports: []container.Port{}, Labels: c.labels, State: c.state, Status: "Up 5 minutes",
		NetworkSettings: &container.NetworkSettingsSummary{Networks: c.settings()}, Mounts: []container.MountPoint{},
	}
	s.HostConfig.NetworkMode = c.network.Name
	return s
}

func (c *Container) inspect() container.InspectResponse {
	running := c.state == "running"
	got := container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{
			ID: c.ID, Name: "/" + c.Name, Image: imageID(c.image), State: &container.State{Status: c.state, Running: running},
			HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(c.network.Name)},
		},
		Config:          &container.Config{Image: c.image, Labels: c.labels},
		NetworkSettings: &container.NetworkSettings{Networks: c.settings()},
	}
	if running {
		got.NetworkSettings.SandboxKey = c.port.sandboxKey()
	}
	return got
}

func (n *Network) inspect() network.Inspect {
	i := network.Inspect{
		Name: n.Name, ID: n.ID, Created: n.created, Scope: "local", Driver: n.Driver, IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Containers: make(map[string]network.EndpointResource, len(n.attached)), Options: n.options, Labels: map[string]string{},
	}
	if n.Bridge != "" {
		i.IPAM.Config = append(i.IPAM.Config, network.IPAMConfig{Subnet: n.subnet.String(), Gateway: n.Gateway.String()})
	}
	for id, c := range n.attached {
		i.Containers[id] = network.EndpointResource{
			Name: c.Name, EndpointID: c.endpointID, MacAddress: macOf(c.port.address).String(),
			IPv4Address: c.port.address.String() + "/" + strconv.Itoa(n.subnet.Bits()),
		}
	}
	return i
}

// imageID makes up an image's digest.
func imageID(name string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name)))
}
