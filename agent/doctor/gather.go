package doctor

import (
	"context"

	"netguard/agent/config"
)

// Gather looks at the host with the configuration in force. It does not read the
// files: Config and Policies are the caller's. The error is that of a context that
// ended meanwhile.
func Gather(ctx context.Context, version string, cfg config.Config) (Facts, error) {
	f := Facts{Version: version}
	for _, look := range []func(){
		func() { f.Agent = readAgent(ctx, cfg.Socket) },
		func() { f.Docker = readDocker(ctx, cfg) },
		func() { probe(ctx, &f) },
		func() { f.Firewall = readFirewall(ctx) },
		func() { f.Links = readLinks(ctx, f.Docker, cfg.Uplinks) },
		// After the probes: some of it is there only once a module is loaded.
		func() { f.Host = readHost() },
	} {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		look()
	}
	return f, ctx.Err()
}
