// Package fieldtest helps tests of functions that compare structs field by field. Such a test
// fails if somebody adds a field to the struct and forgets it in the function.
package fieldtest

import (
	"reflect"
	"testing"
)

// Differs sets each field of a T to something else, and fails the test unless same notices.
// values says, by field, what to set. Differs skips a field that has nil there.
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
