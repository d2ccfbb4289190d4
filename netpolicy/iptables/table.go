package iptables

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
)

// table is the filter table as iptables-save lists it.
type table struct {
	chains []string            // in the order of the list
	rules  map[string][]string // by chain: what follows "-A CHAIN "
	policy map[string]string   // of the kernel's own chains
	// incompatible says that nft wrote what iptables cannot read into the table.
	incompatible bool
}

func newTable() *table {
	return &table{rules: map[string][]string{}, policy: map[string]string{}}
}

// parseTables reads a list of tables, by their names. It leaves out lines that it cannot read.
// Such a line is foreign: netguard compares its own with what it wrote.
func parseTables(text string) (map[string]*table, error) {
	tables := map[string]*table{}
	var t *table
	scan := bufio.NewScanner(strings.NewReader(text))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := scan.Text()
		switch {
		case strings.HasPrefix(line, "#"):
			if name, ok := strings.CutSuffix(line, "' is incompatible, use 'nft' tool."); ok {
				tables[strings.TrimPrefix(name, "# Table `")] = &table{incompatible: true}
			}
		case strings.HasPrefix(line, "*"):
			t = newTable()
			tables[line[1:]] = t
		case t == nil:
		case strings.HasPrefix(line, ":"):
			name, rest, _ := strings.Cut(line[1:], " ")
			policy, _, _ := strings.Cut(rest, " ")
			if t.has(name) {
				continue
			}
			t.chains = append(t.chains, name)
			t.rules[name] = nil
			if policy != "-" {
				t.policy[name] = policy
			}
		case strings.HasPrefix(line, "-A "):
			t.add(line)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return tables, nil
}

// parseTable reads the list of one table.
func parseTable(text, name string) (*table, error) {
	tables, err := parseTables(text)
	if err != nil {
		return nil, err
	}
	t := tables[name]
	if t == nil {
		return newTable(), nil
	}
	if t.incompatible {
		return nil, fmt.Errorf("list rules: %w", ErrIncompatible)
	}
	return t, nil
}

func (t *table) add(line string) {
	chain, rule, _ := strings.Cut(strings.TrimPrefix(line, "-A "), " ")
	if _, ok := t.rules[chain]; !ok {
		return
	}
	t.rules[chain] = append(t.rules[chain], strings.TrimRight(rule, " "))
}

func (t *table) has(chain string) bool {
	_, ok := t.rules[chain]
	return ok
}

// own lists netguard's chains.
func (t *table) own() []string {
	var all []string
	for _, c := range t.chains {
		if ownsChain(c) {
			all = append(all, c)
		}
	}
	return all
}

func ownsChain(name string) bool {
	_, format := formatOf(name)
	return ownsGeneration(name) || format || slices.Contains(marks, name) || name == chainStray || name == probeChain || slices.Contains(staticChains[:], name)
}

// docker tells whether Docker has its rules here.
func (t *table) docker() bool {
	return t.has("DOCKER-USER") || t.has("DOCKER") || t.has("DOCKER-FORWARD")
}

// empty tells whether there is nothing but marks and the kernel's own chains, which accept.
func (t *table) empty() bool {
	for _, c := range t.chains {
		if len(t.rules[c]) > 0 || t.policy[c] != "ACCEPT" && !slices.Contains(marks, c) {
			return false
		}
	}
	return true
}
