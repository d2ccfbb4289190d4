package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/google/go-cmp/cmp"
)

// read decodes an answer about a network as the client does after cut.
func (m *members) read(t *testing.T, raw []byte) (n Network, shortened bool, err error) {
	t.Helper()
	m.text = nil
	r, err := http.NewRequestWithContext(context.WithValue(t.Context(), cutting{}, m), http.MethodGet, "http://docker/networks/n", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := &http.Response{Body: io.NopCloser(bytes.NewReader(raw))}
	if err := cut(r, answer); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var i network.Inspect
	if err := json.Unmarshal(rest, &i); err != nil {
		return n, false, err
	}
	if n = newNetwork(i); m.text != nil {
		err = m.decode(n.Name)
		n.Endpoints = m.all
	}
	return n, m.text != nil, err
}

func listed(name string, containers map[string]network.EndpointResource) network.Inspect {
	return network.Inspect{ID: "n", Name: name, Driver: "bridge", Containers: containers, Labels: map[string]string{"of": `"}],{ \`}}
}

// TestMembers: whatever comes and goes, what is decoded is what the client decodes, and what did
// not change is the same pointer.
func TestMembers(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 11))
		var m members
		all := map[string]network.EndpointResource{}
		var before []*Attachment
		for step := range 30 {
			id := fmt.Sprintf("%064x", r.IntN(6))
			switch r.IntN(5) {
			case 0:
				delete(all, id)
			case 1:
				all[fmt.Sprint("ep-", r.IntN(2))] = network.EndpointResource{Name: "step"}
			default:
				all[id] = network.EndpointResource{Name: `na"me`, EndpointID: fmt.Sprint(r.IntN(2)), MacAddress: fmt.Sprintf("02:42:00:00:00:%02x", r.IntN(3)), IPv4Address: "192.0.2.1/24"}
			}
			raw, err := json.Marshal(listed("n", maps.Clone(all)))
			if err != nil {
				t.Fatal(err)
			}
			got, shortened, err := m.read(t, append(raw, '\n'))
			if err != nil || !shortened {
				t.Fatalf("seed %d, step %d: %v, the list was cut out: %v", seed, step, err, shortened)
			}
			want := newNetwork(listed("n", all))
			if d := cmp.Diff(len(want.Endpoints), len(got.Endpoints)); d != "" || !want.SameEndpoints(&got) {
				t.Fatalf("seed %d, step %d: %v, want %v", seed, step, got.Endpoints, want.Endpoints)
			}
			again, _, _ := m.read(t, raw)
			if !slices.Equal(again.Endpoints, got.Endpoints) {
				t.Fatalf("seed %d, step %d: the same answer, and other pointers", seed, step)
			}
			if others := slices.DeleteFunc(slices.Clone(got.Endpoints), func(a *Attachment) bool { return slices.Contains(before, a) }); len(others) > 1 {
				t.Fatalf("seed %d, step %d: %d are others", seed, step, len(others))
			}
			before = got.Endpoints
		}
	}
}

// TestMembersOdd: an answer that is not as expected is the client's, or an error.
func TestMembersOdd(t *testing.T) {
	id := strings.Repeat("0a", 32)
	one := map[string]network.EndpointResource{id: {MacAddress: "02:42:00:00:00:01"}}
	plain, _ := json.Marshal(listed("n", one))
	spaced, _ := json.MarshalIndent(listed("n", one), "", " ")
	for name, c := range map[string]struct {
		raw        string
		cut, fails bool
		endpoints  int
	}{
		"plain":                   {string(plain), true, false, 1},
		"with_spaces":             {string(spaced), false, false, 1},
		"no_list":                 {`{"Id":"n","Containers":null}`, false, false, 0},
		"an_empty_list":           {`{"Id":"n","Containers":{}}`, true, false, 0},
		"two_lists":               {`{"Containers":{},"Containers":{"` + id + `":{}}}`, false, false, 1},
		"a_list_by_another_name":  {`{"Containers":{},"containers":{"` + id + `":{}}}`, false, false, 1},
		"an_escaped_name":         {`{"\u0043ontainers":{"` + id + `":{}},"Containers":{}}`, false, false, 1},
		"an_ID_twice":             {`{"Containers":{"` + id + `":{"Name":"a"},"` + id + `":{"Name":"b"}}}`, true, false, 1},
		"an_ID_twice_and_another": {`{"Containers":{"` + id + `":{"Name":"a"},"` + id + `":{"Name":"b"},"other":{}}}`, true, false, 2},
		"nothing":                 {``, false, true, 0},
		"an_end_too_early":        {string(plain[:len(plain)-9]), false, true, 0},
		"a_value_is_missing":      {`{"Containers":}`, false, true, 0},
		"a_list_of_numbers":       {`{"Containers":{"` + id + `":7}}`, true, true, 0},
		"a_list_without_names":    {`{"Containers":{{}}}`, true, true, 0},
		"no_object":               {`[{"Containers":{}}]`, false, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var m members
			n, shortened, err := m.read(t, []byte(c.raw))
			if (err != nil) != c.fails || !c.fails && shortened != c.cut || len(n.Endpoints) != c.endpoints {
				t.Errorf("%d endpoints, cut out: %v, %v", len(n.Endpoints), shortened, err)
			}
			if n, _, err := m.read(t, plain); err != nil || len(n.Endpoints) != 1 {
				t.Errorf("afterwards: %d endpoints, %v", len(n.Endpoints), err)
			}
		})
	}
}

// FuzzMembers: no answer does harm.
func FuzzMembers(f *testing.F) {
	plain, _ := json.Marshal(listed("n", map[string]network.EndpointResource{"a": {}, "b": {Name: `\"`}}))
	f.Add(plain)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var i network.Inspect
		var m members
		n, shortened, err := m.read(t, raw)
		if json.Unmarshal(raw, &i) != nil || !shortened || err != nil {
			return
		}
		if want := newNetwork(i); !want.SameEndpoints(&n) {
			t.Errorf("%v, want %v", n.Endpoints, want.Endpoints)
		}
	})
}
