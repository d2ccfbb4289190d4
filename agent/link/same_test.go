package link

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// TestSame: whatever field of a port differs, the two are not the same. A field that Same
// forgets fails here.
func TestSame(t *testing.T) {
	values := map[string]any{"MAC": []byte{2}, "PeerMAC": []byte{2}, "Since": time.Unix(1, 0), "LinkLocals": []LinkLocal{{Addr: netip.IPv6Unspecified()}}}
	for i := range reflect.TypeFor[Port]().NumField() {
		var one, other Port
		field, name := reflect.ValueOf(&other).Elem().Field(i), reflect.TypeFor[Port]().Field(i).Name
		switch value, given := values[name]; {
		case given:
			field.Set(reflect.ValueOf(value).Convert(field.Type()))
		case field.Kind() == reflect.String:
			field.SetString("x")
		case field.CanInt():
			field.SetInt(1)
		case field.CanUint():
			field.SetUint(1)
		case field.Kind() == reflect.Bool:
			field.SetBool(true)
		default:
			t.Fatalf("%s: the test has no value for it", name)
		}
		if one.Same(&other) {
			t.Errorf("%s differs, and Same does not see it", name)
		}
		if !other.Same(&other) {
			t.Errorf("%s: it is not the same as itself", name)
		}
	}
}
