package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/docker/docker/api/types/container"
)

// trimText gives what the client would decode of a body.
func trimText(t testing.TB, body io.Reader) (string, *trim, error) {
	t.Helper()
	tr := &trim{left: 1 << 20}
	got, err := io.ReadAll(trimOf(ask(t, tr), io.NopCloser(body)))
	return string(got), tr, err
}

// ask is a question with a trim.
func ask(t testing.TB, tr *trim) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithValue(t.Context(), trimming{}, tr), http.MethodGet, "http://docker/containers/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTrim(t *testing.T) {
	long := strings.Repeat(`"k":"v",`, 1000)
	for name, c := range map[string]struct{ text, want string }{
		"labels":                         {`[{"Id":"a","Labels":{"a":"b","c":"d"},"State":"x"}]`, `[{"Id":"a","Labels":{},"State":"x"}]`},
		"many":                           {`[{"Labels":{` + long + `"z":""}},{"Labels":{` + long + `"z":""}}]`, `[{"Labels":{}},{"Labels":{}}]`},
		"none":                           {`[{"Labels":{},"Id":"a"}]`, `[{"Labels":{},"Id":"a"}]`},
		"null":                           {`[{"Labels":null,"Ports":null,"Id":"a"}]`, `[{"Labels":null,"Ports":null,"Id":"a"}]`},
		"a_number":                       {`[{"Labels":17,"Id":{"a":"b"}}]`, `[{"Labels":17,"Id":{"a":"b"}}]`},
		"spaces":                         {"[ {\n\"Labels\" :\t{ \"a\" : 1 } , \"Id\" : \"a\"} ]", "[ {\n\"Labels\" :\t{} , \"Id\" : \"a\"} ]"},
		"signs_in_labels":                {`[{"Labels":{"}":"]}","\"":"\\\"}","{":"[{"},"Id":"a"}]`, `[{"Labels":{},"Id":"a"}]`},
		"lists_and_texts":                {`[{"Command":"a\"b]","Ports":[{"a":[1]}],"Mounts":[{}],"Id":"a"}]`, `[{"Command":"","Ports":[],"Mounts":[],"Id":"a"}]`},
		"inside_HostConfig":              {`[{"HostConfig":{"NetworkMode":"n","Annotations":{"a":"b"}}}]`, `[{"HostConfig":{"NetworkMode":"n","Annotations":{}}}]`},
		"a_network_of_that_name_stays":   {`[{"NetworkSettings":{"Networks":{"Labels":{"a":"b"}}}}]`, `[{"NetworkSettings":{"Networks":{"Labels":{"a":"b"}}}}]`},
		"a_value_of_that_name_stays":     {`[{"Image":"Labels","Id":"a","Names":["Labels"]}]`, `[{"Image":"Labels","Id":"a","Names":["Labels"]}]`},
		"an_escaped_key_stays_and_costs": {`[{"L\u0061bels":{"a":"b"}}]`, `[{"L\u0061bels":{"a":"b"}}]`},
		"a_key_in_other_letters_too":     {`[{"labels":{"a":"b"},"LABELS":{"a":"b"}}]`, `[{"labels":{"a":"b"},"LABELS":{"a":"b"}}]`},
		"and_a_longer_one":               {`[{"Labels2":{"a":"b"},"` + strings.Repeat("Labels", 9) + `":{"a":"b"}}]`, `[{"Labels2":{"a":"b"},"` + strings.Repeat("Labels", 9) + `":{"a":"b"}}]`},
		"twice":                          {`[{"Labels":{"a":"b"},"Labels":{"c":"d"}}]`, `[{"Labels":{},"Labels":{}}]`},
		"no_list":                        {`{"message":"Labels"}`, `{"message":"Labels"}`},
		"an_end_too_early":               {`[{"Labels":{"a":"b`, `[{"Labels":{`},
		"an_end_too_many":                {`[{"Labels":{"a":"b"}}]]}}{"Labels":{"a":1}}`, `[{"Labels":{}}]]}}{"Labels":{"a":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _, err := trimText(t, strings.NewReader(c.text)); err != nil || got != c.want {
				t.Errorf("%q, %v", got, err)
			}
			if got, _, err := trimText(t, iotest.OneByteReader(strings.NewReader(c.text))); err != nil || got != c.want {
				t.Errorf("byte by byte: %q, %v", got, err)
			}
		})
	}
	t.Run("says_what_was_the_largest", func(t *testing.T) {
		for key, want := range map[string]string{"Labels": "the labels of web are too large to read", "Ports": "most of all its ports"} {
			_, tr, err := trimText(t, strings.NewReader(`[{"Command":"short","`+key+`":["`+strings.Repeat("x", 1000)+`"],"Labels":{"a":"b"}}]`))
			if got := tr.why("web"); err != nil || !strings.Contains(got, want) {
				t.Errorf("%q, %v", got, err)
			}
		}
	})
	t.Run("what_has_no_end_ends_in_constant_memory", func(t *testing.T) {
		for first, then := range map[string]string{`[{"Labels":{`: `"a":"b",`, `[{"`: strings.Repeat("x", 1<<16), `[{"Labels":{"`: strings.Repeat("x", 1<<16)} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := ask(t, &trim{left: 16 << 20})
			_, err := io.Copy(io.Discard, body(trimOf(r, io.NopCloser(&endless{first: first, then: then})), 1<<20, false))
			if runtime.ReadMemStats(&after); !errors.Is(err, errLargeAnswer) || after.TotalAlloc-before.TotalAlloc > 1<<20 {
				t.Errorf("%s: %d bytes were allocated, %v", first, after.TotalAlloc-before.TotalAlloc, err)
			}
		}
	})
}

// FuzzTrim: what is left is as before in all but the trimmed values, and it costs no more.
func FuzzTrim(f *testing.F) {
	f.Add(`[{"Id":"a","Labels":{"a":"b}"},"Names":["/x"],"Ports":[{"PrivatePort":1}],"HostConfig":{"NetworkMode":"n","Annotations":{"a":"b"}}},{"Labels":null}]`)
	f.Add(`[{"L\u0061bels":{"a":"b"},"Command":"\\\"","NetworkSettings":{"Networks":{"Labels":{"NetworkID":"x"}}}}]`)
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := trimText(t, strings.NewReader(text))
		if err != nil || len(got) > len(text) {
			t.Fatalf("%q, %v", got, err)
		}
		if single, _, err := trimText(t, iotest.OneByteReader(strings.NewReader(text))); err != nil || single != got {
			t.Fatalf("byte by byte: %q, %v, at once %q", single, err, got)
		}
		var before, after []container.Summary
		if json.Unmarshal([]byte(text), &before) != nil {
			return
		}
		if err := json.Unmarshal([]byte(got), &after); err != nil || len(after) != len(before) {
			t.Fatalf("%q cannot be decoded: %v", got, err)
		}
		for i := range before {
			for _, c := range []*container.Summary{&before[i], &after[i]} {
				c.Labels, c.Ports, c.Mounts, c.Command, c.HostConfig.Annotations = nil, nil, nil, "", nil
				if d := c.ImageManifestDescriptor; d != nil {
					d.Annotations = nil
				}
			}
			if !reflect.DeepEqual(before[i], after[i]) {
				t.Errorf("%+v\n%+v", before[i], after[i])
			}
		}
	})
}
