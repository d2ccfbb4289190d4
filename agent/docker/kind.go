package docker

import (
	"strings"

	"github.com/docker/docker/api/types/network"
)

// Kind tells what an endpoint of a network is.
type Kind string

const (
	// KindContainer is a container, or will be one in a moment.
	KindContainer Kind = ""
	// KindBuild is a RUN step of an image that BuildKit builds inside of dockerd.
	KindBuild Kind = "build"
	// KindSwarmIngress is the namespace where Swarm's routing mesh receives packets for the
	// published ports of services.
	KindSwarmIngress Kind = "swarm-ingress"
	// KindUnknown is anything else that the engine lists.
	KindUnknown Kind = "unknown"
)

const (
	// ingressSandbox and gatewayNetwork are names that libnetwork has built in.
	ingressSandbox = "ingress-sbox"
	gatewayNetwork = "docker_gwbridge"
	// unjoined is the beginning of an endpoint's name while the endpoint is in no namespace.
	// Such an endpoint can send nothing. It may later become a container's.
	unjoined = "ep-"
	// buildName is how long the random names are that BuildKit gives.
	buildName = 25
)

// kindOf tells an endpoint's kind by the key under which the engine lists it. A container's key
// is its ID. The key of another namespace is the name that a part of the engine gave it.
// BuildKit gives the namespace and its endpoint the same random name, which is shorter than any
// ID. Nobody can fake a kind without the engine's socket, and that socket gives root anyway.
func kindOf(network, key string, r network.EndpointResource) Kind {
	switch {
	case isID(key):
		return KindContainer
	case key == ingressSandbox && network == gatewayNetwork:
		return KindSwarmIngress
	case key == r.Name && len(key) == buildName && strings.Trim(key, "0123456789abcdefghijklmnopqrstuvwxyz") == "":
		return KindBuild
	}
	return KindUnknown
}
