package guard

import (
	"net/netip"
	"reflect"
	"testing"
)

// Whatever of a port changes, the wish is another one: Apply does nothing for the same.
func TestWishesDiffer(t *testing.T) {
	values := map[reflect.Type]any{
		reflect.TypeFor[int](): 1, reflect.TypeFor[uint32](): uint32(1), reflect.TypeFor[string](): "x", reflect.TypeFor[bool](): true,
		reflect.TypeFor[MAC](): MAC{2}, reflect.TypeFor[netip.Addr](): netip.IPv6Unspecified(),
		reflect.TypeFor[[]netip.Addr](): []netip.Addr{netip.IPv6Unspecified()}, reflect.TypeFor[Allow](): Allow{MACs: []MAC{{2}}},
	}
	for field := range reflect.TypeFor[Port]().NumField() {
		changed := Port{}
		at := reflect.ValueOf(&changed).Elem()
		name := at.Type().Field(field).Name
		value, ok := values[at.Field(field).Type()]
		if !ok {
			t.Fatalf("no value for %s", name)
		}
		at.Field(field).Set(reflect.ValueOf(value))
		if (Wish{Ports: []Port{{}}}).equal(Wish{Ports: []Port{changed}}) {
			t.Errorf("a change of %s is none", name)
		}
	}
}
