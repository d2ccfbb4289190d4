// Package changed finds what differs between two lists, so that work grows with the change and
// not with the list.
package changed

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Identical tells whether a and b are the same map. A map that was handed out does not change,
// so the same map has the same content.
func Identical[K comparable, V any](a, b map[K]V) bool {
	return len(a) == len(b) && reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// Same tells whether two maps have the same content. It is quick if they are the same map.
func Same[V comparable](a, b map[string]V) bool { return Identical(a, b) || maps.Equal(a, b) }

// Between gives the values that only the list was has (gone), and those that only the list is
// has (came). Neither list has a value twice. Between is quick if the lists differ in one
// place.
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

// Find gives the value with a key from a list that is sorted by keys. If there is none, it
// gives the zero value.
func Find[T Keyed](list []T, key string) (none T) {
	if i, ok := slices.BinarySearchFunc(list, key, byKey[T]); ok {
		return list[i]
	}
	return none
}

// With gives a sorted list with the values of some put in. Each replaces the value that has its
// key, or is added. If some has the zero value for a key, the result has no value with that
// key. If nothing changes, the result is list itself.
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
