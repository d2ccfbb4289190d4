package netpolicy

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
)

// maxBroken bounds whom a file isolates that is edited again and again and never
// right.
const maxBroken = 2000

// Reload reads policy files again, c being what they said before. Nothing that
// is enforced is lost by a fault, until the file has none or is gone: a file
// with faults stays what it was without, and one that has never been without
// isolates whom it is about now and whom any version since was about.
func (c Catalog) Reload(sources []Source) Catalog {
	sources = slices.Clone(sources)
	slices.SortStableFunc(sources, func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	files := make([]*reading, len(sources))
	for i, s := range sources {
		files[i] = c.read(s)
	}
	c.name(files)
	var now Catalog
	for _, f := range files {
		file := f.done()
		if before, ok := c.before(file); ok && len(file.Faults) > 0 {
			file = file.keep(before)
		}
		now.Files = append(now.Files, file)
	}
	return now
}

// read reads a file, unless c has the same text.
func (c Catalog) read(s Source) *reading {
	i, ok := slices.BinarySearchFunc(c.Files, s.Name, func(f File, name string) int { return cmp.Compare(f.Name, name) })
	if ok && c.Files[i].read != nil && s.Err == nil && c.Files[i].text == sha256.Sum256(s.Data) {
		same := *c.Files[i].read
		same.File.read = c.Files[i].read
		return &same
	}
	f := read(s)
	if f.Total == 0 {
		was := *f
		f.File.read = &was
	}
	return f
}

// name gives each name to one file and faults to the others. A file with faults
// takes none from one without; among those without, one that had its names
// before is first, then the order of files.
func (c Catalog) name(files []*reading) {
	owners := map[string]Place{}
	claim := func(f *reading) {
		for _, name := range slices.Sorted(maps.Keys(f.names)) {
			if there, taken := owners[name]; taken && name != "" {
				f.taken(name, f.names[name], there)
			}
		}
		if f.Total == 0 {
			maps.Copy(owners, f.names)
		}
	}
	var rest, wrong []*reading
	for _, f := range files {
		switch {
		case f.Total > 0:
			wrong = append(wrong, f)
		case c.had(f):
			claim(f)
		default:
			rest = append(rest, f)
		}
	}
	for _, f := range slices.Concat(rest, wrong) {
		claim(f)
	}
}

// had tells whether all names of a file were those of its policies in force.
func (c Catalog) had(f *reading) bool {
	i := slices.IndexFunc(c.Files, func(o File) bool { return o.Name == f.File.Name && o.usable() })
	if i < 0 {
		return false
	}
	for name := range f.names {
		if !c.Files[i].has(name) {
			return false
		}
	}
	return true
}

func (f File) has(policy string) bool {
	return slices.ContainsFunc(f.Policies, func(p Policy) bool { return p.name == policy })
}

// before gives the file of c that a file was: that of its name, or else one of
// the same text, of which it is a copy, or which was renamed.
func (c Catalog) before(f File) (File, bool) {
	for _, is := range []func(File) bool{
		func(o File) bool { return o.Name == f.Name },
		func(o File) bool { return o.text == f.text && f.text != [sha256.Size]byte{} },
	} {
		if i := slices.IndexFunc(c.Files, is); i >= 0 {
			return c.Files[i], true
		}
	}
	return File{}, false
}

// keep gives a file that has faults what is in force of it. The faults stay, for
// people; nothing is broken any more where something good is kept.
func (f File) keep(before File) File {
	if before.usable() {
		return File{Name: f.Name, Policies: before.Policies, Faults: f.Faults, Kept: true, text: f.text}
	}
	all := slices.Clone(before.Selects)
	for _, b := range f.Selects {
		if slices.ContainsFunc(all, func(o Broken) bool { return o.Policy == b.Policy && o.Select.equal(b.Select) }) {
			continue
		}
		if len(all) == maxBroken {
			f.Unclear = true
			break
		}
		all = append(all, b)
	}
	f.Selects = all
	return f
}

// Loses names what was in force and is not in other any more: policies that are
// gone from a file, and files that isolated somebody. A file that is being
// written loses them for a moment, as one does that somebody edits.
func (c Catalog) Loses(other Catalog) []string {
	var lost []string
	for _, was := range c.Files {
		var is File
		if i := slices.IndexFunc(other.Files, func(o File) bool { return o.Name == was.Name }); i >= 0 {
			is = other.Files[i]
		}
		for _, p := range was.Policies {
			if was.usable() && !is.has(p.name) {
				lost = append(lost, p.name)
			}
		}
		if len(was.Selects) > 0 && len(is.Selects)+len(is.Policies) == 0 {
			lost = append(lost, was.Name)
		}
	}
	slices.SortFunc(lost, strings.Compare)
	return lost
}
