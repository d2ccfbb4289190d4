package netpolicy

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
)

// maxBroken bounds the selectors that a file collects when it is edited many times, each time
// with a fault.
const maxBroken = 2000

// Reload reads policy files again. c is what they said before. A fault takes away nothing that is
// enforced. A file with faults keeps the policies of its last version without faults. If there
// was no such version, the file isolates whom it selects now and whom earlier versions selected.
// Both end when the file has no fault any more, or is gone.
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

// read reads a file. If c has read the same text without faults, read takes the result from
// there.
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

// name gives each name to one file, and a fault to other files with that name. A file with faults
// takes no name from a file without. Among files without faults, those come first that had their
// names before. The others follow in their order.
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

// had tells whether the policies of this file that were in force already had all of its names.
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

// before gives what a file was in c: the file of the same name, or else one with the same text.
// The new file is a copy of that one, or its new name.
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

// keep gives a file with faults what its earlier version has in force. The faults stay, for
// people to read. If policies are kept, the file closes nobody because of the fault.
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

// Loses names what is in force in c and not in other: policies that a file no longer has, and
// files that isolated somebody and no longer do. While a file is being written or edited, it
// loses them for a moment.
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
