package endpoint

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"netguard/agent/docker"
	"netguard/internal/label"
)

// Label is the label that turns netguard off for a container, if the operator permits it.
const Label = label.Enabled

// Operator is what the configuration says about which endpoints are managed.
type Operator struct {
	Exclude     []string // patterns of network names
	AllowOptOut bool     // netguard.enabled=false counts
	// Left says, by bridge name, why netguard leaves a network alone.
	Left map[string]string
}

// Same tells whether an operator says the same.
func (op Operator) Same(o Operator) bool {
	return op.AllowOptOut == o.AllowOptOut && slices.Equal(op.Exclude, o.Exclude) && maps.Equal(op.Left, o.Left)
}

// Manages tells whether netguard manages a network.
func (op Operator) Manages(n docker.Network) bool { return op.leaves(n) == "" }

// Beyond tells whether netguard cannot manage a network because of its driver.
func Beyond(n docker.Network) bool { return beyond(n) != "" }

// beyond says why a network cannot be managed, "" if it can.
func beyond(n docker.Network) string {
	switch n.Driver {
	case "bridge":
	case "host":
		return "it uses the host's own network (--network host)"
	case "null":
		return "it has no network (--network none)"
	case "macvlan", "ipvlan", "overlay":
		return fmt.Sprintf("its network's driver is %s, whose traffic crosses no bridge of this host that netguard could guard", n.Driver)
	default:
		return fmt.Sprintf("its network's driver is %q: netguard manages networks of the driver bridge", n.Driver)
	}
	return ""
}

// leaves says why a network is left alone, "" if it is not.
func (op Operator) leaves(n docker.Network) string {
	if why := beyond(n); why != "" {
		return why
	}
	if why, ok := op.Left[n.Bridge]; ok && n.Bridge != "" {
		return why
	}
	for _, pattern := range op.Exclude {
		if ok, err := path.Match(pattern, n.Name); ok && err == nil {
			return fmt.Sprintf("the configuration excludes its network (networks.exclude: %s)", pattern)
		}
	}
	return ""
}

// Unmanaged says why netguard leaves an endpoint alone; "" if it manages it. faults are what is
// wrong with the label that asks for that.
func (op Operator) Unmanaged(n docker.Network, c docker.Container) (reason string, faults []string) {
	if reason := op.leaves(n); reason != "" {
		return reason, nil
	}
	switch value, there := c.Labels[Label]; {
	case !there || value == "true":
	case value == "false" && op.AllowOptOut && !c.Counts(Label):
		why := "the image has the same, and an image cannot opt out"
		if c.Unproven != "" {
			why = c.Unproven
		}
		faults = append(faults, fmt.Sprintf("label %s=false has no effect: %s: add the image to trust_image_labels of the configuration (docker lists it as %.200q), or exclude the network", Label, why, c.Image))
	case value == "false" && op.AllowOptOut:
		return "its label " + Label + "=false opts out", nil
	case value == "false":
		faults = append(faults, fmt.Sprintf("label %s=false has no effect: the operator's configuration does not permit it (allow_opt_out: true)", Label))
	default:
		faults = append(faults, fmt.Sprintf("label %s=%.40q: it is true or false", Label, value))
	}
	return "", faults
}
