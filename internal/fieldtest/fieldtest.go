// Package fieldtest helps tests of functions that compare structs field by field: a field
// that is added to a struct and forgotten there fails them.
package fieldtest

import (
	"reflect"
	"testing"
)

// Differs sets each field of a T to something else, and fails the test unless same notices.
// Values gives, by field, what a field is set to; one with the value nil does not count.
func Differs[T any](t testing.TB, same func(a, b *T) bool, values map[string]any) {
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
		case field.CanUint():
			field.SetUint(1)
		case field.Kind() == reflect.Bool:
			field.SetBool(true)
		default:
			t.Fatalf("%T.%s: there is no value for it", other, name)
		}
		if same(&one, &other) {
			t.Errorf("%T.%s differs, and that is not seen", other, name)
		}
		if !same(&other, &other) {
			t.Errorf("%T.%s: it is not the same as itself", other, name)
		}
	}
}
