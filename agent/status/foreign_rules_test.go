package status

import (
	"strings"
	"testing"
)

func TestUntracked(t *testing.T) {
	if text := untracked(nil); text != "" {
		t.Error(text)
	}
	if text := untracked([]string{"a", "b", "c", "d", "e"}); !strings.Contains(text, "(a; b; c; and 2 more)") {
		t.Error(text)
	}
}
