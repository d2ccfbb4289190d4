package config

import (
	"fmt"

	"netguard/internal/strictyaml"
)

// Overrides are the flags of the command line. A nil one was not given.
type Overrides struct {
	Socket, Metrics, DockerHost, PolicyDir *string
}

// With gives the configuration with the flags put over it. Faults name the flag.
func (c Config) With(o Overrides) (Config, error) {
	var faults Faults
	for _, f := range []struct {
		flag  string
		value *string
		to    *string
		check func(string) error
	}{
		{"--socket", o.Socket, &c.Socket, checkSocket},
		{"--metrics", o.Metrics, &c.Metrics, checkMetrics},
		{"--docker-host", o.DockerHost, &c.DockerHost, checkDockerHost},
		{"--policy-dir", o.PolicyDir, &c.PolicyDir, checkPath},
	} {
		if f.value == nil {
			continue
		}
		if err := f.check(*f.value); err != nil {
			faults = append(faults, strictyaml.Fault{Place: strictyaml.Place{File: f.flag}, Text: fmt.Sprintf("%q: %v", clip(*f.value), err)})
			continue
		}
		*f.to = *f.value
	}
	if faults != nil {
		return Config{}, faults
	}
	return c, nil
}
