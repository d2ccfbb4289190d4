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
	// KindSwarmIngress is the namespace by which Swarm's routing mesh takes in what
	// is for published ports of services.
	KindSwarmIngress Kind = "swarm-ingress"
	// KindUnknown is anything else that the engine lists.
	KindUnknown Kind = "unknown"
)

const (
	// ingressSandbox and gatewayNetwork are names that libnetwork has built in.
	ingressSandbox = "ingress-sbox"
	gatewayNetwork = "docker_gwbridge"
	// unjoined begins the name of an endpoint that is in no namespace (yet). It can
	// send nothing, and may become anybody's: a container's for example.
	unjoined = "ep-"
	// buildName is how long the random names are that BuildKit gives.
	buildName = 25
)

// kindOf tells an endpoint's kind by what the engine lists it by: the ID of the
// container whose namespace it is in, or the name that other parts of the engine gave
// to the namespace. BuildKit gives namespace and endpoint the same random name, and no
// container's ID is as short. Whoever can make an endpoint is root by the engine's
// socket.
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
