package doctor

import (
	"context"

	"netguard/agent/config"
)

// Gather looks at the host with the configuration in force. The caller sets Config and
// Policies, because Gather does not read the files. The error is ctx's, if ctx ended meanwhile.
func Gather(ctx context.Context, version string, cfg config.Config) (Facts, error) {
	f := Facts{Version: version}
	for _, look := range []func(){
		func() { f.Agent = readAgent(ctx, cfg.Socket) },
		func() { f.Docker = readDocker(ctx, cfg) },
		func() { probe(ctx, &f) },
		func() { f.Firewall = readFirewall(ctx) },
		func() { f.Links = readLinks(ctx, f.Docker, cfg.Uplinks) },
		// After the probes: they load modules, and some of these files exist only then.
		func() { f.Host = readHost() },
	} {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		look()
	}
	return f, ctx.Err()
}
