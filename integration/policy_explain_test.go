package integration

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

const composePolicies = `
name: shop
select: {project: shop}
egress: [{to: [{entity: any}], ports: [udp/53, tcp/22]}]
---
name: web
select: {project: shop, service: web}
ingress: [{from: [{entity: external}, {service: probe}], ports: [tcp/80]}]
egress: [{to: [{service: api}], ports: [tcp/8080]}]
---
name: api
select: {project: shop, service: api}
ingress: [{from: [{service: web}], ports: [tcp/8080]}, {from: [{service: probe}]}]
egress: [{to: [{service: db}, {service: cache}], ports: [tcp/5432, tcp/80]}]
---
name: db
select: {project: shop, service: db}
ingress: [{from: [{service: api}], ports: [tcp/5432]}, {from: [{service: backup}]}]
---
name: cache
select: {project: shop, service: cache}
ingress: [{from: [{service: api}, {service: worker}], ports: [tcp/80, udp/53]}]
---
name: inside
select: {project: shop, labels: {tier: "*"}}
egress: [{to: [{service: db}, {service: cache}, {service: api}]}]
---
name: guardrail
select: {project: shop}
deny: [{ingress: {from: [{project: blog, service: web}]}}, {egress: {to: [{service: db}], ports: [tcp/22]}}]
`

// TestExplainIsTrue compares what `policy explain` says with what a connection
// does, for every pair of a project of twelve.
func TestExplainIsTrue(t *testing.T) {
	t.Parallel()
	e := Start(t)
	e.Network("net", Subnet("198.18.64.0/24"), Subnet("fd00:64::/64"))
	services := []string{"tcp/80", "tcp/8080", "tcp/5432", "tcp/22", "udp/53"}
	book := newRulebook(e, e.Agent())
	var guests []*guest
	var group errgroup.Group
	for _, who := range []struct{ name, project, service, tier, ingress string }{
		{"shop-web-1", "shop", "web", "", ""}, {"shop-web-2", "shop", "web", "", ""}, {"shop-api-1", "shop", "api", "", ""},
		{"shop-api-2", "shop", "api", "", "[{from: [{service: web}]}]"}, {"shop-db-1", "shop", "db", "", ""}, {"shop-cache-1", "shop", "cache", "", ""},
		{"shop-worker-1", "shop", "worker", "logic", ""}, {"shop-backup-1", "shop", "backup", "data", ""}, {"shop-probe-1", "shop", "probe", "logic", "[]"},
		{"shop-odd-1", "shop", "odd", "", "[{form: []}]"}, {"blog-web-1", "blog", "web", "", ""}, {"blog-db-1", "blog", "db", "", "[{ports: [tcp/5432, icmp]}]"},
	} {
		labels := map[string]string{}
		if who.tier != "" {
			labels["tier"] = who.tier
		}
		if who.ingress != "" {
			labels["netguard.ingress"] = who.ingress
		}
		c := e.Create(who.name, On("net"), Service(who.project, who.service), Labels(labels))
		guests = append(guests, &guest{Container: c, network: "net"})
		group.Go(func() error { return c.TryStart(context.Background()) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, g := range guests {
		g.settle(t, services)
	}
	book.awaitAdmitted(t, len(guests))
	book.enact(t, map[string]string{"shop.yaml": composePolicies})
	ask := append(slices.Clone(services), "icmp/echo-request")
	client := control.NewClient(book.a.Socket)
	var all []*knock
	allowed := 0
	for _, from := range guests {
		for _, to := range guests {
			if from == to {
				continue
			}
			for _, s := range ask {
				x, err := client.Explain(t.Context(), from.Name, to.Name, s)
				if err != nil {
					t.Fatal(err)
				}
				if len(x.Answers) != 2 {
					t.Fatalf("%s>%s %s: answers %+v, want one for each family", from.Name, to.Name, s, x.Answers)
				}
				if x.Allowed {
					allowed++
				}
				for _, k := range from.to(x.Allowed, to, s) {
					k.what += " " + x.Answers[0].Sentence
					all = append(all, k)
				}
			}
		}
	}
	t.Logf("%d questions, %d answered with yes, %d connections", len(all)/2, allowed, len(all))
	if allowed < 50 || allowed > len(all)/2-50 {
		t.Errorf("the policies say hardly anything: %d of %d are allowed", allowed, len(all)/2)
	}
	for part := range slices.Chunk(all, 500) {
		if wrong := knockAll(t, part); len(wrong) > 0 {
			t.Errorf("%s", describe(part, wrong))
		}
	}
	t.Run("and_the_command_says_the_same", func(t *testing.T) {
		for _, k := range all {
			if k.protocol != "tcp" || k.to.Port() != 5432 || k.to.Addr().Is6() || !strings.HasPrefix(k.what, "shop-api-1>") {
				continue
			}
			_, to, _ := strings.Cut(strings.Fields(k.what)[0], ">")
			r := book.a.For(t).CLI("policy", "explain", "shop-api-1", to, "tcp/5432")
			want := map[bool]int{true: 0, false: 1}[k.open]
			if r.Code != want {
				t.Errorf("want exit code %d: %s", want, r)
			}
		}
	})
	t.Run("plan_is_true_and_changes_nothing", func(t *testing.T) {
		// Were there no policies of files, all is open but for labels.
		r := book.a.For(t).CLI("policy", "plan", "--policy-dir", emptyDir(t))
		if r.Code != 0 || !strings.Contains(r.Stdout, "may now reach") {
			t.Errorf("plan: %s", r)
		}
		if wrong := knockAll(t, all[:200]); len(wrong) > 0 {
			t.Errorf("after it: %s", describe(all[:200], wrong))
		}
	})
}

func emptyDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "none.yaml"), []byte("# none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
