// Package changed finds what differs between two lists, so that a change costs what it is
// about.
package changed

import (
	"maps"
	"reflect"
)

// Identical tells whether two maps are one. What was handed out does not change, so then
// nothing in it did.
func Identical[K comparable, V any](a, b map[K]V) bool {
	return len(a) == len(b) && reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// Same tells whether the same is in two maps. It is quick where they are one.
func Same[V comparable](a, b map[string]V) bool { return Identical(a, b) || maps.Equal(a, b) }

// Between gives what is in was alone, and what is in is alone. No list has anything twice.
// It is quick where the lists differ in one place.
func Between[T comparable](was, is []T) (gone, came []T) {
	for len(was) > 0 && len(is) > 0 && was[0] == is[0] {
		was, is = was[1:], is[1:]
	}
	for len(was) > 0 && len(is) > 0 && was[len(was)-1] == is[len(is)-1] {
		was, is = was[:len(was)-1], is[:len(is)-1]
	}
	if len(was) == 0 || len(is) == 0 {
		return was, is
	}
	before := make(map[T]bool, len(was))
	for _, v := range was {
		before[v] = true
	}
	for _, v := range is {
		if before[v] {
			delete(before, v)
		} else {
			came = append(came, v)
		}
	}
	for _, v := range was {
		if before[v] {
			gone = append(gone, v)
		}
	}
	return gone, came
}
