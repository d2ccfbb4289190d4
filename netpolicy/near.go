package netpolicy

import "strings"

// Nearest gives the candidate that was probably meant by a word, or "" when none
// is near: at most a third of its letters differ, or one starts with the other.
func Nearest(word string, candidates []string) string {
	const longest = 128 // the cost is the product of the lengths
	if word == "" || len(word) > longest {
		return ""
	}
	best, least := "", 0
	lower := strings.ToLower(word)
	for _, c := range candidates {
		if len(c) > longest {
			continue
		}
		lc := strings.ToLower(c)
		d := distance(lower, lc)
		if d > max(1, len(c)/3) && (len(word) < 3 || !strings.HasPrefix(lc, lower) && !strings.HasPrefix(lower, lc)) {
			continue
		}
		if best == "" || d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the edits that turn a into b: add, drop or change a letter, or swap two
// neighbours.
func distance(a, b string) int {
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j+1]+1, row[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
