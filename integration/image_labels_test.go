package integration

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
	"golang.org/x/sync/errgroup"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// composed are the labels that Docker Compose gives to a container.
func composed(project, service string) map[string]string {
	return map[string]string{
		"com.docker.compose.project": project, "com.docker.compose.service": service, "com.docker.compose.version": "2.29.7",
		"com.docker.compose.config-hash": "7a1f", "com.docker.compose.container-number": "1", "com.docker.compose.oneoff": "False",
	}
}

// built are those that it gives to an image that it builds.
func built(project, service string) map[string]string {
	all := composed(project, service)
	maps.DeleteFunc(all, func(key, _ string) bool {
		return !strings.HasSuffix(key, "project") && !strings.HasSuffix(key, "service") && !strings.HasSuffix(key, "version")
	})
	return all
}

// masquerade is a host on which images have labels that policies name.
type masquerade struct {
	e        *Engine
	p        *Proxy
	book     *rulebook
	services []string
	db       *guest
	all      map[string]*guest
	starts   errgroup.Group
}

// settle waits until all containers run.
func (m *masquerade) settle(t *testing.T) {
	t.Helper()
	if err := m.starts.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, g := range m.all {
		g.settle(t, m.services)
	}
}

func (m *masquerade) run(t *testing.T, name string, options ...ContainerOption) *guest {
	t.Helper()
	g := &guest{Container: m.e.Create(name, append(options, On("net"))...), network: "net"}
	m.all[name] = g
	m.starts.Go(func() error { return g.TryStart(context.Background()) })
	return g
}

// reached checks who reaches db, and nobody else does.
func (m *masquerade) reached(t *testing.T, by ...string) {
	t.Helper()
	var all []*knock
	for name, g := range m.all {
		all = append(all, g.to(slices.Contains(by, name), m.db, m.services...)...)
	}
	mustKnock(t, all)
}

func (m *masquerade) status(t *testing.T, g *guest) string {
	t.Helper()
	return strings.Join(strings.Fields(m.book.a.For(t).CLI("status", g.Name).Stdout), " ")
}

const dbOfShop = "{name: db, select: {project: shop, service: db}, ingress: [{from: [{service: api}, {project: '*', labels: {role: backup}}, {project: '*', labels: {team: '*'}}]}]}\n"

// TestImageLabels: whoever makes an image cannot give its containers an identity that
// policies allow something.
func TestImageLabels(t *testing.T) {
	t.Parallel()
	e := Start(t)
	m := &masquerade{e: e, p: e.Proxy(), services: []string{"tcp/5432"}, all: map[string]*guest{}}
	e.Network("net", Subnet("198.18.66.0/24"), Subnet("fd00:66::/64"))
	api := built("shop", "api")
	e.Image("built:1", api)
	e.Image("evil:1", map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": "api", "role": "backup", "team": "red"})
	e.Image("committed:1", composed("shop", "api"))
	e.Image("moved:1", map[string]string{"role": "backup"})
	hash := maps.Clone(api)
	hash["com.docker.compose.config-hash"] = "7a1f"
	own := composed("shop", "api")
	own["com.docker.compose.config-hash"] = "5c22"

	m.db = welcome(t, e, "db", "net", m.services, Service("shop", "db"))
	honest := []string{
		m.run(t, "by-service", Service("shop", "api")).Name,
		m.run(t, "by-label", Label("role", "backup")).Name,
		m.run(t, "by-any-label", Label("team", "blue")).Name,
		m.run(t, "by-compose", From("built:1"), Labels(composed("shop", "api"))).Name,
		m.run(t, "by-another-value", From("evil:1"), Label("team", "blue")).Name,
	}
	tool := m.run(t, "tool", From("evil:1"))
	m.run(t, "same-value", From("evil:1"), Service("shop", "api"))
	m.run(t, "half-composed", From("built:1"), Labels(hash))
	m.run(t, "only-built", From("built:1"))
	m.run(t, "of-a-commit", From("committed:1"))
	m.run(t, "composed-of-a-commit", From("committed:1"), Labels(own))
	m.run(t, "moved", From("moved:1"))
	with := m.run(t, "with-a-sidecar")
	m.settle(t)
	e.Run("sidecar", From("evil:1"), Sharing(with.Container))
	e.Image("moved:1", nil)
	everybody := slices.Collect(maps.Keys(m.all))
	t.Run("all_reach_it_without_a_policy", func(t *testing.T) { m.reached(t, everybody...) })

	m.book = newRulebook(e, e.Agent(AgentFlags("--docker-host", m.p.Host())))
	m.book.awaitAdmitted(t, len(m.all)+1)
	m.book.enact(t, map[string]string{"db.yaml": dbOfShop})
	t.Run("only_creators_make_peers", func(t *testing.T) { m.reached(t, honest...) })
	t.Run("also_of_an_agent_that_starts_again", func(t *testing.T) {
		m.book.a.Restart()
		m.book.await(t, "the policies are in force", m.book.inForce)
		m.reached(t, honest...)
	})
	t.Run("people_are_told", func(t *testing.T) {
		r := m.book.a.For(t).CLI("policy", "explain", tool.Name, "db", "tcp/5432")
		if text := strings.Join(strings.Fields(r.Stdout), " "); r.Code != 1 || !strings.Contains(text, `"role"="backup", "team"="red" of tool do not count for what policy db allows: the image has the same`) {
			t.Errorf("explain does not say why: %s", r)
		}
		if text := m.status(t, tool); !strings.Contains(text, `labels "com.docker.compose.project"="shop", "com.docker.compose.service"="api"`) || !strings.Contains(text, "trust_image_labels") || !strings.Contains(text, "evil:1") {
			t.Errorf("status does not name label, image and remedy: %s", text)
		}
		for _, name := range []string{"by-service", "by-compose"} {
			if r := m.book.a.For(t).CLI("status", name); r.Code != 0 {
				t.Errorf("of an honest container: %s", r)
			}
		}
	})
	t.Run("what_closes_counts_them", func(t *testing.T) {
		s := m.services[0]
		m.book.enact(t, map[string]string{"deny.yaml": "{name: no-backup, select: {service: db}, deny: [{ingress: {from: [{labels: {role: backup}}]}}]}\n"})
		mustKnock(t, slices.Concat(tool.to(false, m.db, s), m.all["by-label"].to(false, m.db, s), m.all["by-service"].to(true, m.db, s)))
		m.book.enact(t, map[string]string{"close.yaml": "{name: backup, select: {labels: {role: backup}}, ingress: [{from: [{service: api}]}], egress: []}\n"})
		mustKnock(t, slices.Concat(tool.to(false, m.db, s), m.all["by-service"].to(true, m.db, s), m.all["by-service"].to(true, tool, s), m.all["only-built"].to(false, tool, s)))
	})
	t.Run("a_policy_that_they_select_adds_nothing", func(t *testing.T) {
		s := m.services[0]
		const all = "{name: all, select: {}, egress: []}\n---\n{name: api, select: {project: shop, service: api}, egress: [{to: [{service: db}]}]}\n"
		m.book.enact(t, map[string]string{"all.yaml": all})
		mustKnock(t, slices.Concat(tool.to(false, m.db, s), m.all["by-service"].to(true, m.db, s), m.all["by-compose"].to(true, m.db, s)))
	})
	t.Run("nor_do_they_open_what_a_container_s_label_closes", func(t *testing.T) {
		m.book.enact(t, nil)
		shut := welcome(t, e.For(t), "shut", "net", m.services, Service("shop", "db"), Label("netguard.ingress", "[{from: [{service: api}]}]"))
		m.book.awaitAdmitted(t, len(m.all)+2)
		var knocks []*knock
		for _, name := range []string{"tool", "only-built", "of-a-commit"} {
			knocks = append(knocks, m.all[name].to(false, shut, m.services...)...)
		}
		mustKnock(t, slices.Concat(knocks, m.all["by-service"].to(true, shut, m.services...), m.all["by-compose"].to(true, shut, m.services...)))
	})
	m.book.awaitAdmitted(t, len(m.all)+1)
	m.book.enact(t, map[string]string{"db.yaml": dbOfShop})
	t.Run("an_operator_may_trust_images", func(t *testing.T) {
		a := m.book.a.For(t)
		a.WriteConfig("trust_image_labels: ['evil*', 'comm*:1']\n")
		opens(t, slices.Concat(tool.to(true, m.db, m.services...), m.all["of-a-commit"].to(true, m.db, m.services...), with.to(true, m.db, m.services...)))
		mustKnock(t, m.all["only-built"].to(false, m.db, m.services...))
		if r := a.CLI("status", tool.Name); r.Code != 0 {
			t.Errorf("status: %s", r)
		}
		a.WriteConfig("{}\n")
		m.book.await(t, "the image is not trusted", func(control.Status) bool { return strings.Contains(m.status(t, tool), "not count") })
		m.reached(t, honest...)
	})
	t.Run("what_cannot_be_read_opens_nothing", m.unread)
}

// unread: an image that is gone, and a dockerd that does not say what it has.
func (m *masquerade) unread(t *testing.T) {
	m.e.Image("gone:1", nil)
	gone := m.e.For(t).Create("gone", From("gone:1"), On("net"), Service("shop", "api"))
	if _, err := m.e.Client.ImageRemove(t.Context(), gone.Inspect().Image, image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	m.book.a.Restart()
	gone.Start()
	g := &guest{Container: gone, network: "net"}
	g.settle(t, m.services)
	m.book.awaitAdmitted(t, len(m.all)+2)
	mustKnock(t, slices.Concat(g.to(false, m.db, m.services...), m.all["by-service"].to(true, m.db, m.services...), m.db.to(true, g, m.services...)))
	if text := m.status(t, g); !strings.Contains(text, `labels "com.docker.compose.project"="shop", "com.docker.compose.service"="api" of gone do not count`) || !strings.Contains(text, "cannot be read") {
		t.Errorf("status does not say so: %s", text)
	}
	m.e.Image("late:1", map[string]string{"size": "large"})
	m.p.Hang(func(path string) bool { return strings.HasPrefix(path, "/images/") })
	late := welcome(t, m.e.For(t), "late", "net", m.services, From("late:1"), Service("shop", "api"))
	m.book.awaitAdmitted(t, len(m.all)+3)
	mustKnock(t, slices.Concat(late.to(false, m.db, m.services...), m.db.to(true, late, m.services...)))
	m.p.Spoil(nil)
	opens(t, late.to(true, m.db, m.services...))
}
