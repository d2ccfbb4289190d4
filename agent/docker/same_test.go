package docker

import (
	"net/netip"
	"reflect"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSame: whatever field of a container, network or attachment differs, the two are not
// the same. A field that Same forgets fails here.
func TestSame(t *testing.T) {
	differs(t, (*Container).Same, map[string]any{
		"LocalAddrs": map[string][]netip.Addr{"n": {netip.MustParseAddr("fe80::1")}},
		"Labels":     map[string]string{"a": "b"}, "Inherited": map[string]bool{"a": true},
		"image": imageRef{imageKey: imageKey{id: "x"}, platform: &ocispec.Platform{}},
		"Ports": []Published{{HostPort: 1}}, "Networks": []string{"n"},
	})
	differs(t, func(a, b *Network) bool { return a.Same(b) }, map[string]any{
		"Gateways": []netip.Addr{netip.MustParseAddr("192.0.2.1")}, "Reserved": []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		"Subnets": []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "Routed": [2]bool{true},
		"Endpoints": nil, // it does not count
	})
	differs(t, (*Attachment).Same, map[string]any{"MAC": []byte{2}, "IPv4": netip.MustParseAddr("192.0.2.1"), "IPv6": netip.MustParseAddr("::1")})
	a, b := Container{Labels: map[string]string{"a": "b"}}, Container{Labels: map[string]string{"a": "b"}}
	if !a.Same(&b) {
		t.Error("equal labels in two maps differ")
	}
	b.Labels["a"] = "c"
	if a.Same(&b) {
		t.Error("other labels do not differ")
	}
}

// differs sets each field of a T to something else, and expects that same notices.
func differs[T any](t *testing.T, same func(a, b *T) bool, values map[string]any) {
	t.Helper()
	for i := range reflect.TypeFor[T]().NumField() {
		var one, other T
		name := reflect.TypeFor[T]().Field(i).Name
		field := reflect.ValueOf(&other).Elem().Field(i)
		field = reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem() // some are not exported
		value, given := values[name]
		switch {
		case given && value == nil:
			continue
		case given:
			field.Set(reflect.ValueOf(value).Convert(field.Type()))
		case field.Kind() == reflect.String:
			field.SetString("x")
		case field.CanInt():
			field.SetInt(1)
		case field.Kind() == reflect.Bool:
			field.SetBool(true)
		default:
			t.Fatalf("%T.%s: the test has no value for it", other, name)
		}
		if same(&one, &other) {
			t.Errorf("%T.%s differs, and Same does not see it", other, name)
		}
		if !same(&other, &other) {
			t.Errorf("%T.%s: it is not the same as itself", other, name)
		}
	}
}
