package netpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Source is a policy file's text.
type Source struct {
	Name string // as it stands in faults
	Data []byte
}

// File is what a policy file says.
type File struct {
	Name string
	// Policies are those of the file; none is to be used if there are Faults.
	Policies []Policy
	Faults   Faults
	// Selects are whom the policies of a file with faults are about, as far as
	// that can be told.
	Selects []Broken
	// Unclear says that a file with faults is also about containers that cannot
	// be told.
	Unclear bool
	// Kept says that Policies are from before the faults, and in force.
	Kept bool
}

// Broken is a policy of a file that has a fault.
type Broken struct {
	Policy string // its name, or ""
	File   string
	Select Selector
}

// Catalog is what all policy files say, sorted by name; the zero Catalog is that
// of no files.
type Catalog struct{ Files []File }

// Load reads policy files. It finds all faults of all files, names that are
// there twice included.
func Load(sources []Source) Catalog {
	sources = slices.Clone(sources)
	slices.SortStableFunc(sources, func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	var c Catalog
	names := map[string]Place{}
	for _, s := range sources {
		c.Files = append(c.Files, load(s, names))
	}
	return c
}

func load(s Source, names map[string]Place) File {
	f := File{Name: s.Name}
	d := decoder{file: s.Name}
	if len(s.Data) > MaxFileBytes {
		d.fault(Place{File: s.Name}, "the file is larger than %d bytes: is it the right one?", MaxFileBytes)
		f.Faults, f.Unclear = d.faults, true
		return f
	}
	roots, whole := d.documents(s.Data, maxDocuments)
	f.Unclear = !whole
	for _, root := range roots {
		raw := d.policy(root)
		if !raw.mapping {
			f.Unclear = true
			continue
		}
		before := d.total
		home := d.toSelector(raw.sel, "")
		if raw.selectRead && d.total == before {
			f.Selects = append(f.Selects, Broken{raw.name.text, s.Name, home}) // kept only if there are faults
		} else {
			f.Unclear = true
		}
		// What the selector's faults are is said once, by convert.
		d.faults, d.total = d.faults[:min(before, len(d.faults))], before
		p := d.convert(raw)
		if at, ok := names[p.name]; ok && p.name != "" {
			d.fault(raw.name.at, "the name %q is taken by the policy at %s: names are unique across all files", clip(p.name), at)
		} else {
			names[p.name] = raw.name.at
		}
		f.Policies = append(f.Policies, p)
	}
	d.faults.sort()
	f.Faults = d.faults
	if extra := d.total - len(d.faults); extra > 0 {
		f.Faults = append(f.Faults, Fault{Place{File: s.Name}, fmt.Sprintf("and %d faults more", extra)})
	}
	if len(f.Faults) == 0 {
		f.Selects, f.Unclear = nil, false
	}
	return f
}

// Keep puts in place of each file that has faults what the catalog before had
// of the same name without faults: a file with a fault changes nothing. The
// faults stay, for people; nothing is broken any more where something is kept.
func (c Catalog) Keep(before Catalog) Catalog {
	kept := Catalog{Files: slices.Clone(c.Files)}
	for i, f := range kept.Files {
		if len(f.Faults) == 0 {
			continue
		}
		j := slices.IndexFunc(before.Files, func(o File) bool { return o.Name == f.Name && o.usable() })
		if j < 0 {
			continue
		}
		kept.Files[i] = File{Name: f.Name, Policies: before.Files[j].Policies, Faults: f.Faults, Kept: true}
	}
	return kept
}

// usable tells whether the policies of the file are to be enforced: there is no
// fault, or they are those from before it.
func (f File) usable() bool { return len(f.Faults) == 0 || f.Kept }

// Policies gives the policies to enforce.
func (c Catalog) Policies() []Policy {
	var all []Policy
	for _, f := range c.Files {
		if f.usable() {
			all = append(all, f.Policies...)
		}
	}
	return all
}

// Broken gives the policies of files with faults, in place of which nothing is
// known: whom they are about is closed.
func (c Catalog) Broken() []Broken {
	var all []Broken
	for _, f := range c.Files {
		all = append(all, f.Selects...)
	}
	return all
}

// Unclear names the files with faults that are about containers that cannot be
// told, and in place of which nothing is known: there is no safe start with one.
func (c Catalog) Unclear() []string {
	var names []string
	for _, f := range c.Files {
		if f.Unclear {
			names = append(names, f.Name)
		}
	}
	return names
}

// Faults gives the faults of all files.
func (c Catalog) Faults() Faults {
	var all Faults
	for _, f := range c.Files {
		all = append(all, f.Faults...)
	}
	return all
}

func (b Broken) String() string {
	name := b.Policy
	if name == "" {
		name = "a policy"
	}
	return strings.TrimSpace(fmt.Sprintf("%s in %s has a fault", clip(name), b.File))
}
