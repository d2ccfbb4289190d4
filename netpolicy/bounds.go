package netpolicy

// Bounds of texts that other people write. They are far above what people need.
const (
	MaxFileBytes  = 1 << 20
	MaxLabelBytes = 16 << 10

	maxDepth      = 32  // of the YAML, of which policies use 8
	maxDocuments  = 500 // policies of a file
	maxRules      = 100 // items of ingress, egress and deny each
	maxPeers      = 100 // items of from, to
	maxPorts      = 100 // items of ports
	maxExcept     = 100 // items of except
	maxLabels     = 32  // keys of labels
	maxName       = 128 // bytes of a name, a pattern, a port
	maxPolicyName = 63
	maxLabelKey   = 256
	maxLabelValue = 1024
	maxText       = 1024 // bytes of a description

	// A policy, or a label, may become this many rules of a rule set on a path.
	maxFileCost  = 2000
	maxLabelCost = 200

	// The labels of all containers may become this many rules together.
	maxLabelsCost = 4000
)
