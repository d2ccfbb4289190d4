package guard

import (
	"testing"
)

func TestApply(t *testing.T) {
	t.Run("applies_once_and_leaves_nothing_to_do", func(t *testing.T) {
		h := newHost(t, 3)
		d := h.driver()
		t.Logf("%+v", d.Features())
		r := h.apply(d, h.wish())
		t.Logf("%+v", r)
		t.Log(output(t, "bridge", "-d", "link"))
		t.Log(output(t, "bridge", "fdb", "show", "br", bridgeName))
		t.Log(output(t, "ip", "neigh"))
		t.Log(output(t, "nft", "list", "ruleset"))
	})
}
