// Package audit holds boot stacks against a release: one that somebody was given,
// one that was built from the sources, or both. Where they differ it says at what
// stage of the build they parted, where inside a file, and what becomes of the
// launch digests. The report is documented in docs/spec/audit.md.
//
// The release's signature is the caller's to check, and building too. What a
// stack's manifest says of its files is not believed: the files are read.
package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/compare"
)

// MediaType names this version of the report.
const MediaType = "application/vnd.kattest.audit.v1+json"

// Copy is a boot stack that is held against a release.
type Copy struct {
	Name string // for people: stack, rebuilt
	Dir  string

	stack    stack.Stack // the manifest, with size and SHA-256 of the files as they are
	launches release.Release
	broken   error // why there are no launches
}

// Open reads a boot stack's manifest and files. Files that are not there are
// missing from it; any other error is one of reading.
func Open(name, dir string) (Copy, error) {
	manifest, err := stack.Read(dir)
	if err != nil {
		return Copy{}, fmt.Errorf("%s: %w", dir, err)
	}
	c := Copy{Name: name, Dir: dir, stack: manifest}
	c.stack.Files = nil
	for _, f := range manifest.Files {
		path := filepath.Join(dir, f.Name)
		info, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is no regular file", path)
		}
		if err != nil {
			return Copy{}, err
		}
		described, err := stack.Describe(dir, f.Name, f.Source)
		if err != nil {
			return Copy{}, err
		}
		described.Stages = f.Stages
		c.stack.Files = append(c.stack.Files, described)
	}
	return c, nil
}

// Report is what an audit found. Every comparison is with the release.
type Report struct {
	MediaType string `json:"mediaType"`
	// Statement is the SHA-256 of what the release's publisher signed.
	Statement measure.Hash `json:"statement"`
	// Copies are the stacks that were held against the release, by their names.
	Copies  []string `json:"copies"`
	Subject []Row    `json:"subjects"`
	// Launches are the release's, and what the copies' files give instead.
	Launches []Launch  `json:"launches"`
	Findings []Finding `json:"findings"`
}

// Same reports whether nothing differs.
func (r Report) Same() bool { return len(r.Findings) == 0 }

// Row is one thing that the release names. Hashes are SHA-256, hexadecimal.
type Row struct {
	Name    string `json:"name"` // a file, or Lock or CommandLine
	Release string `json:"release"`
	// Copies are what each copy has, in their order; "" is nothing.
	Copies []string `json:"copies"`
}

// Names of rows that are no files.
const (
	Lock        = "lock file"
	CommandLine = "command line"
)

// Launch is an entry of the release's table, and the digests that each copy gives
// in its place; "" is none.
type Launch struct {
	Entry  release.Entry `json:"release"`
	Copies []string      `json:"copies"`
}

// Finding is something that differs from the release.
type Finding struct {
	Copy string `json:"copy"`
	Name string `json:"name"` // of the row
	// Stage is the first of the build at which the copy and the other one parted,
	// "" if none is known; Other is that other copy's name.
	Stage string `json:"stage,omitempty"`
	Other string `json:"other,omitempty"`
	// Inside is where the file, first, and the other copy's part.
	Inside *compare.Difference `json:"inside,omitempty"`
	// Note is what cannot be said, and why.
	Note string `json:"note,omitempty"`
}

// Run holds the copies against the release.
func Run(r release.Release, statement measure.Hash, copies ...Copy) Report {
	report := Report{MediaType: MediaType, Statement: statement, Copies: []string{}, Launches: []Launch{}, Findings: []Finding{}}
	for i := range copies {
		report.Copies = append(report.Copies, copies[i].Name)
		copies[i].launches, copies[i].broken = copies[i].measure(r)
	}
	report.Subject = rows(r, copies)
	for i, e := range r.Table {
		l := Launch{Entry: e, Copies: []string{}}
		for _, c := range copies {
			digest := ""
			if c.broken == nil {
				digest = c.launches.Table[i].Measurement.String()
			}
			l.Copies = append(l.Copies, digest)
		}
		report.Launches = append(report.Launches, l)
	}
	for _, row := range report.Subject {
		for i, value := range row.Copies {
			if value == row.Release {
				continue
			}
			report.Findings = append(report.Findings, find(row, i, copies))
		}
	}
	return report
}

// measure computes the release's table from the copy's files.
func (c Copy) measure(r release.Release) (release.Release, error) {
	image, err := c.read(stack.Firmware)
	if err != nil {
		return release.Release{}, err
	}
	fw, err := measure.ParseFirmware(image)
	if err != nil {
		return release.Release{}, fmt.Errorf("%s: %w", stack.Firmware, err)
	}
	shapes := make([]measure.Shape, len(r.Table))
	for i, e := range r.Table {
		shapes[i] = e.Shape()
	}
	return release.New(c.stack, fw, shapes, r.KernelHashes)
}

// maxFile bounds a file that is looked into, in bytes.
const maxFile = 512 << 20

func (c Copy) read(name string) ([]byte, error) {
	f, ok := c.stack.File(name)
	if !ok {
		return nil, fmt.Errorf("there is no %s", name)
	}
	if f.Size > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, f.Size, maxFile)
	}
	file, err := os.Open(filepath.Join(c.Dir, name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data := make([]byte, f.Size)
	_, err = io.ReadFull(file, data)
	return data, err
}

// rows are lock file, command line, and the files of the release and of any copy.
func rows(r release.Release, copies []Copy) []Row {
	lock, cmdline := Row{Name: Lock, Release: r.Lock}, Row{Name: CommandLine, Release: r.Cmdline}
	var files []Row
	for _, c := range r.Components {
		files = append(files, Row{Name: c.Name, Release: c.SHA256.String()})
	}
	for _, c := range copies {
		lock.Copies = append(lock.Copies, c.stack.Lock)
		cmdline.Copies = append(cmdline.Copies, c.stack.Cmdline)
		for _, f := range c.stack.Files {
			if !slices.ContainsFunc(files, func(row Row) bool { return row.Name == f.Name }) {
				files = append(files, Row{Name: f.Name})
			}
		}
	}
	for i := range files {
		files[i].Copies = []string{}
		for _, c := range copies {
			f, _ := c.stack.File(files[i].Name)
			files[i].Copies = append(files[i].Copies, f.SHA256)
		}
	}
	return append([]Row{lock, cmdline}, files...)
}

// find looks into what differs: against a copy that is the release's, or else
// against any other.
func find(row Row, i int, copies []Copy) Finding {
	f := Finding{Copy: copies[i].Name, Name: row.Name}
	switch {
	case row.Name == Lock:
		f.Note = "it was built from another lock file, so that anything may differ"
		return f
	case row.Name == CommandLine:
		inside, _ := compare.Files([]byte(row.Copies[i]), []byte(row.Release))
		f.Other, f.Inside = "release", &inside
		return f
	case row.Release == "":
		f.Note = "the release names no such file"
		return f
	case row.Copies[i] == "":
		f.Note = "missing"
		return f
	}
	other := -1
	for j, value := range row.Copies {
		if value != "" && value != row.Copies[i] && (other < 0 || value == row.Release) {
			other = j
		}
	}
	if other < 0 {
		f.Note = "there is nothing to compare it with: a release names files by their digests alone"
		return f
	}
	f.Other = copies[other].Name
	mine, _ := copies[i].stack.File(row.Name)
	theirs, _ := copies[other].stack.File(row.Name)
	f.Stage = parted(mine.Stages, theirs.Stages)
	a, err := copies[i].read(row.Name)
	if err == nil {
		var b []byte
		if b, err = copies[other].read(row.Name); err == nil {
			inside, _ := compare.Files(a, b)
			f.Inside = &inside
		}
	}
	if err != nil {
		f.Note = "not looked into: " + err.Error()
	}
	return f
}

// parted is the first stage that two builds do not share.
func parted(a, b []stack.Stage) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i].Name
		}
	}
	return ""
}
