package guard

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	renamed := func(t *testing.T, to int) {
		t.Helper()
		run(t, "nft", "rename", "chain", "bridge", TableName, fmt.Sprintf("%s%d", formatPrefix, Format), fmt.Sprintf("%s%d", formatPrefix, to))
	}
	t.Run("a_newer_one_is_not_touched", func(t *testing.T) {
		h := newHost(t, 2)
		d := h.driver()
		w := h.wish()
		h.apply(d, w)
		if err := d.Check(); err != nil {
			t.Fatal(err)
		}
		renamed(t, Format+1)
		before := h.state()
		_, applied := d.Apply(Wish{}, Everything)
		_, read := d.Read(Everything)
		for what, err := range map[string]error{"check": d.Check(), "apply": applied, "read": read, "clean up": d.Cleanup(), "clean up by another": h.driver().Cleanup()} {
			if !errors.Is(err, ErrNewer) {
				t.Errorf("%s: %v", what, err)
			}
		}
		differ(t, before, h.state(), "a table of a newer netguard")
	})
	t.Run("an_older_one_is_replaced_and_its_records_stay", func(t *testing.T) {
		h := newHost(t, 2)
		// The groups that a device is in, for each of its addresses, come by and by.
		groups := regexp.MustCompile(`(?m)^33:33:.*\n`)
		before := groups.ReplaceAllString(h.state(), "")
		d := h.driver()
		w := h.wish()
		h.apply(d, w)
		renamed(t, Format-1)
		run(t, "nft", "add", "chain", "bridge", TableName, "bygone")
		h.apply(h.driver(), w)
		if out := output(t, "nft", "list", "table", "bridge", TableName); strings.Contains(out, "bygone") || !strings.Contains(out, fmt.Sprintf("chain %s%d ", formatPrefix, Format)) {
			t.Errorf("the table:\n%s", out)
		}
		if err := h.driver().Cleanup(); err != nil {
			t.Fatal(err)
		}
		differ(t, before, groups.ReplaceAllString(h.state(), ""), "a cleanup")
	})
}
