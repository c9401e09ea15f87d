package fv

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Difference is a part that two images do not have alike.
type Difference struct {
	Path string
	// A and B are the part in either image, nil where it is not there.
	A, B *Part
	// At is the first byte that differs, from the part's begin: the length of the
	// shorter where that is how the other begins.
	At int
}

// String says where the difference is, and both values.
func (d Difference) String() string {
	switch {
	case d.A == nil:
		return fmt.Sprintf("%s: only in the second image, %d bytes", d.Path, len(d.B.Data))
	case d.B == nil:
		return fmt.Sprintf("%s: only in the first image, %d bytes", d.Path, len(d.A.Data))
	}
	text := fmt.Sprintf("%s: offset %#x: %s and %s", d.Path, d.At, byteAt(d.A.Data, d.At), byteAt(d.B.Data, d.At))
	if len(d.A.Data) != len(d.B.Data) {
		text += fmt.Sprintf("; %d and %d bytes", len(d.A.Data), len(d.B.Data))
	}
	return text
}

func byteAt(b []byte, at int) string {
	if at >= len(b) {
		return "its end"
	}
	return fmt.Sprintf("%#02x", b[at])
}

// Compare returns the parts that differ, in the order of a, and behind them those
// of b alone. Of a part with pieces the pieces are named, and the part itself only
// if none of them differs: where the fill between them does, or where the same
// content was compressed to other bytes. A part that only one image has is named
// without its pieces, and a header, which holds sizes and sums, only where nothing
// else of its part differs.
func Compare(a, b []Part) []Difference {
	inA, inB := byPath(a), byPath(b)
	var all []Difference
	for _, p := range a {
		q, ok := inB[p.Path]
		switch {
		case !ok:
			if _, there := inB[parent(p.Path)]; there || parent(p.Path) == "" {
				all = append(all, Difference{Path: p.Path, A: &p})
			}
		case !bytes.Equal(p.Data, q.Data):
			all = append(all, Difference{Path: p.Path, A: &p, B: &q, At: firstDifference(p.Data, q.Data)})
		}
	}
	for _, q := range b {
		_, ok := inA[q.Path]
		_, there := inA[parent(q.Path)]
		if !ok && (there || parent(q.Path) == "") {
			all = append(all, Difference{Path: q.Path, B: &q})
		}
	}
	return innermost(all)
}

// headerName is what the header of a volume or a file is called.
const headerName = "header"

func isHeader(path string) bool { return strings.HasSuffix(path, "/"+headerName) }

// innermost leaves out headers where another piece beside them is named, and then
// parts of which a piece is named.
func innermost(all []Difference) []Difference {
	beside := around(all, func(path string) bool { return !isHeader(path) })
	all = slices.DeleteFunc(all, func(d Difference) bool { return isHeader(d.Path) && beside[parent(d.Path)] })
	named := around(all, func(string) bool { return true })
	return slices.DeleteFunc(all, func(d Difference) bool { return named[d.Path] })
}

// around returns the paths of all parts around those that count.
func around(all []Difference, counts func(path string) bool) map[string]bool {
	paths := map[string]bool{}
	for _, d := range all {
		if !counts(d.Path) {
			continue
		}
		for path := parent(d.Path); path != ""; path = parent(path) {
			paths[path] = true
		}
	}
	return paths
}

func byPath(parts []Part) map[string]Part {
	m := make(map[string]Part, len(parts))
	for _, p := range parts {
		m[p.Path] = p
	}
	return m
}

// parent is the path of the part around, "" for the image.
func parent(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return ""
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
