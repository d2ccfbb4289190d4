// Package changed finds what differs between two lists, so that a change costs what it is
// about.
package changed

import (
	"maps"
	"reflect"
	"slices"
	"strings"
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

// Keyed is what has a key of its own.
type Keyed interface {
	comparable
	Key() string
}

// Find gives what has a key in a list that is sorted by keys; the zero value if nothing has it.
func Find[T Keyed](list []T, key string) (none T) {
	if i, ok := slices.BinarySearchFunc(list, key, byKey[T]); ok {
		return list[i]
	}
	return none
}

// With gives a sorted list with some more, in the place of those that have their keys. Where
// some has the zero value for a key, nothing of that key is left. It is the same list if nothing
// in it changes.
func With[T Keyed](list []T, some map[string]T) []T {
	var none T
	keys := slices.SortedFunc(maps.Keys(some), strings.Compare)
	keys = slices.DeleteFunc(keys, func(key string) bool { return Find(list, key) == some[key] })
	if len(keys) == 0 {
		return list
	}
	out := make([]T, 0, len(list)+len(keys))
	for _, key := range keys {
		i, there := slices.BinarySearchFunc(list, key, byKey[T])
		out, list = append(out, list[:i]...), list[i:]
		if there {
			list = list[1:]
		}
		if some[key] != none {
			out = append(out, some[key])
		}
	}
	return append(out, list...)
}

func byKey[T Keyed](t T, key string) int { return strings.Compare(t.Key(), key) }
