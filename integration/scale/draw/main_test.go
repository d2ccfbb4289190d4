package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"testing"

	"netguard/integration/scale"
)

// TestRender looks whether the picture is one that can be read, and tells the runs apart.
func TestRender(t *testing.T) {
	run := func(label string, cpu float64) scale.Run {
		return scale.Run{Label: label, Sizes: []scale.Size{
			{Kind: "stub", Endpoints: 10, StartCPU: cpu, Idle: 3},
			{Kind: "stub", Endpoints: 1000, StartCPU: 2 * cpu, Idle: 16, Restart: -1},
			{Kind: "docker", Endpoints: 10, StartCPU: cpu},
		}}
	}
	picture, err := render([]scale.Run{run("before", 200), run("after", 15)})
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{">before<", ">after<", ">after, real containers<", ">the aim at 1,000<", ">Memory, MB<", ">1000<"} {
		if !bytes.Contains(picture, []byte(text)) {
			t.Errorf("the picture does not say %s", text)
		}
	}
}
