package netpolicy

import (
	"crypto/sha256"
	"fmt"
)

// Source is a policy file's text.
type Source struct {
	Name string // as it stands in faults
	Data []byte
	// Err says why there is no Data: the file is there and cannot be read.
	Err error
}

// File is what a policy file says.
type File struct {
	Name string
	// Policies are the policies of the file. If there are Faults, only those of a Kept file may
	// be used.
	Policies []Policy
	Faults   Faults
	// Selects tell whom the policies of a file with faults are about, as far as they can be read.
	// Those of its earlier versions with faults are among them.
	Selects []Broken
	// Unclear says that the file has faults, and that nobody can tell all containers that it is
	// about.
	Unclear bool
	// Kept says that the file has faults, and that Policies are from its last version without
	// faults. They are in force.
	Kept bool

	text [sha256.Size]byte // of the text that it was read from
	// read is the file before its names were compared with other files. It is nil if the text has
	// faults.
	read *reading
}

// Broken is a policy of a file with faults.
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
func Load(sources []Source) Catalog { return Catalog{}.Reload(sources) }

// start is the place for a fault of a whole file.
func start(file string) Place { return Place{File: file, Line: 1, Column: 1} }

// reading is a file while it is read.
type reading struct {
	File
	decoder
	names map[string]Place
}

func read(s Source) *reading {
	f := &reading{File: File{Name: s.Name}, decoder: newDecoder(s.Name), names: map[string]Place{}}
	if s.Err != nil {
		f.Fault(start(s.Name), "%s", s.Err)
		f.Unclear = true
		return f
	}
	f.text = sha256.Sum256(s.Data)
	if len(s.Data) > MaxFileBytes {
		f.Fault(start(s.Name), "the file is larger than %d bytes: is it the right one?", MaxFileBytes)
		f.Unclear = true
		return f
	}
	roots, whole := f.documents(s.Data, maxDocuments)
	f.Unclear = !whole
	for _, root := range roots {
		raw := f.policy(root)
		if !raw.mapping {
			f.Unclear = true
			continue
		}
		before := f.Total
		about := f.toSelector(raw.sel, "")
		f.selectedEntity(raw.sel, &about)
		if raw.selectRead && f.Total == before {
			f.Selects = append(f.Selects, Broken{raw.name.Text, s.Name, about}) // kept only if there are faults
		} else {
			f.Unclear = true
		}
		// convert reports the faults of the selector. Without this they would be reported twice.
		f.Found, f.Total = f.Found[:min(before, len(f.Found))], before
		p := f.convert(raw)
		if at, ok := f.names[p.name]; ok && p.name != "" {
			f.taken(p.name, raw.name.At, at)
		} else {
			f.names[p.name] = raw.name.At
		}
		f.Policies = append(f.Policies, p)
	}
	return f
}

func (f *reading) taken(name string, here, there Place) {
	f.Fault(here, "the name %q is taken by the policy at %s: names are unique across all files", clip(name), there)
}

// done gives the file with its faults.
func (f *reading) done() File {
	f.Found.Sort()
	f.Faults = f.Found
	if extra := f.Total - len(f.Found); extra > 0 {
		f.Faults = append(f.Faults, Fault{Place: f.Found[len(f.Found)-1].Place, Text: fmt.Sprintf("and %d faults more", extra)})
	}
	if len(f.Faults) == 0 {
		f.Selects, f.Unclear = nil, false
	}
	return f.File
}

// usable tells whether the policies of the file are to be enforced: the file has no fault, or
// they are from before the fault.
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

// Broken gives the policies of files with faults that have no earlier version to keep. Whom they
// select is closed.
func (c Catalog) Broken() []Broken {
	var all []Broken
	for _, f := range c.Files {
		all = append(all, f.Selects...)
	}
	return all
}

// Unclear names the files with faults that have no earlier version to keep, if nobody can tell
// all containers that they are about. A start with such a file is not safe.
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

// String says for people what is wrong: "policy db in db.yaml has a fault".
func (b Broken) String() string {
	name := "a policy"
	if b.Policy != "" {
		name = "policy " + clip(b.Policy)
	}
	return fmt.Sprintf("%s in %s has a fault", name, b.File)
}
