package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
	"netguard/netpolicy"
)

func newExplain(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain SRC DST [PROTO/PORT]",
		Short: "Tell whether one may reach the other, and which policy and rule decide",
		Long: `Tell what the policies in force say of connections from SRC to DST, and which
policy and rule decide. The agent is asked; no packet is sent.

SRC and DST are each a container's name or the beginning of its id, an IP address,
host, or external (an address that is neither a container's nor the host's). The
port is the one at which the container itself listens, not the published one; for
a published port ask for host and its number there. Without PROTO/PORT, everything
that has one answer is told together. icmp is a ping.

There is one answer for each pair of addresses: for each network on which both
are, for IPv4 and IPv6, for each address of the host. Those that differ in nothing
else are shown as one. In an answer, "db ingress[0]" is the first item under
ingress of the policy db, "deny[0].egress" the egress under the first item of deny.

Policy is one thing that a connection needs: Docker's own isolation of networks,
internal networks, and whether anybody listens, are others.

The exit code is 0 when every answer is ALLOWED, and 1 otherwise.`,
		Example: `  netguard policy explain shop-api-1 shop-db-1 tcp/5432
  netguard policy explain shop-api-1 shop-db-1              # by everything
  netguard policy explain 198.51.100.7 shop-web-1 tcp/80    # a client of a published port
  netguard policy explain shop-web-1 169.254.169.254 tcp/80
  netguard policy explain host shop-db-1 icmp
  netguard policy explain web db tcp/22 -o json | jq -r '.answers[].policies[]'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 || len(args) > 3 {
				return errors.New("name who connects, to whom, and maybe by what: SRC DST [PROTO/PORT]")
			}
			return nil
		},
		ValidArgsFunction: g.completeParties,
	}
	output, check := outputFlag(cmd, "text", "json", "yaml")
	cmd.RunE = verb(func(cmd *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		service := ""
		if len(args) == 3 {
			service = args[2]
			if _, err := netpolicy.ParseService(service); err != nil {
				return usage("PROTO/PORT is %v", err)
			}
		}
		cfg, err := g.load(cmd)
		if err != nil {
			return err
		}
		e, err := control.NewClient(cfg.Socket).Explain(cmd.Context(), args[0], args[1], service)
		if errors.Is(err, control.ErrBadService) { // the agent's version reads another language
			return usage("%v", err)
		}
		if err != nil {
			return err
		}
		to := term.ScreenOf(cmd.OutOrStdout())
		if err := writeAnswer(to, *output, e, func() string { return explanationText(e, to.View()) }); err != nil {
			return err
		}
		if !e.Allowed {
			return errNotFine
		}
		return nil
	})
	return cmd
}

// explanationText is an explanation for people: a block for each answer. Answers that differ
// only by addresses have one block.
func explanationText(e netpolicy.Explanation, v term.View) string {
	var b strings.Builder
	if len(e.Answers) == 0 {
		block(&b, verdict(e.Allowed), []string{e.Note}, v)
		return b.String()
	}
	for _, a := range folded(e.Answers) {
		lines := []string{a.Sentence}
		if len(a.Policies) > 0 {
			lines = append(lines, "policies: "+strings.Join(a.Policies, ", "))
		}
		if len(a.Rules) > 0 {
			lines = append(lines, "rules: "+strings.Join(a.Rules, ", "))
		}
		block(&b, verdict(a.Allowed), lines, v)
	}
	if e.Note != "" {
		block(&b, term.Cell{Text: "NOTE", Style: term.Yellow}, []string{e.Note}, v)
	}
	return b.String()
}

// folded puts answers together that differ by nothing but the addresses.
func folded(answers []netpolicy.Answer) []netpolicy.Answer {
	const most = 2 // pairs of addresses that are named
	var all []netpolicy.Answer
	at := map[string]int{}
	pairs := map[int][]string{}
	for _, a := range answers {
		pair := a.Src + " to " + a.Dst
		sentence := strings.Replace(a.Sentence, "("+pair+")", "()", 1)
		key := fmt.Sprintf("%v %q %q %q %q", a.Allowed, a.Service, a.Policies, a.Rules, sentence)
		i, ok := at[key]
		if !ok {
			i = len(all)
			at[key] = i
			all = append(all, a)
		}
		pairs[i] = append(pairs[i], pair)
	}
	for i := range all {
		named := strings.Join(pairs[i][:min(most, len(pairs[i]))], ", ")
		if more := len(pairs[i]) - most; more > 0 {
			named += fmt.Sprintf(" and %d more", more)
		}
		all[i].Sentence = strings.Replace(all[i].Sentence, "("+pairs[i][0]+")", "("+named+")", 1)
	}
	return all
}

func verdict(allowed bool) term.Cell {
	if allowed {
		return term.Cell{Text: "ALLOWED", Style: term.Green}
	}
	return term.Cell{Text: "DENIED", Style: term.Red}
}

// block writes lines beside a word, within the width.
func block(b *strings.Builder, word term.Cell, lines []string, v term.View) {
	indent := strings.Repeat(" ", len("ALLOWED "))
	for i, line := range lines {
		start := indent
		if i == 0 {
			start = word.Style.On(word.Text, v.Colour) + indent[len(word.Text):]
		}
		b.WriteString(start + term.Hang(plain.Text(line), v.Width, indent) + "\n")
	}
}

// completeParties offers what can be one end of a connection, and then how
// services begin.
func (g *globals) completeParties(cmd *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
	switch len(given) {
	case 0, 1:
		names, directive := g.completeContainers(cmd, given, typed)
		for _, entity := range []string{"host", "external"} {
			if len(given) == 0 || given[0] != entity {
				names = append(names, entity)
			}
		}
		return names, directive
	case 2:
		return []string{"tcp/", "udp/", "sctp/", "icmp"}, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
