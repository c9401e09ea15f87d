// Package firmware holds the recipe of the boot stack's firmware: edk2's AmdSev
// platform, from Debian's source with Debian's patches and ours, and the script
// that patches and compiles inside the build's clean root.
//
// It checks nothing: that the firmware compares the kernel with the hashes is
// found out by booting it (launcher/probe).
package firmware

import (
	"embed"
	"io/fs"
)

// Source is the Debian source package of edk2.
const Source = "edk2"

// Folders and files that the script expects and leaves behind.
const (
	// Inputs holds, read-only, the source's tarballs, the patches and Script.
	Inputs = "/in"
	// Work is writable and empty at first. GenFw, which makes edk2's executables,
	// leaves room in each for the length of its own path: the same bytes come of
	// the same folder alone, and the sandbox gives everyone this one.
	Work = "/build"

	ScriptFile = "build.sh"
	// ImageFile stands in Work.
	ImageFile = "OVMF.fd"
	// ToolsFolder, in Work, holds edk2's own tools once they are compiled.
	ToolsFolder = "edk2/BaseTools/Source/C/bin"
)

// Arguments of the script, one for each of its two runs.
const (
	Unpack  = "unpack"
	Compile = "compile" // with the number of jobs and the source's version
)

// Script is a POSIX shell script.
//
//go:embed build.sh
var Script []byte

// patches are ours. Each says why in its head.
//
//go:embed *.patch
var patches embed.FS

// Patch is one change to the source, in the form of diff -u.
type Patch struct {
	Name string
	Data []byte
}

// Patches returns our patches in the order in which they are applied.
func Patches() ([]Patch, error) {
	names, err := fs.Glob(patches, "*.patch") // sorted
	if err != nil {
		return nil, err
	}
	all := make([]Patch, len(names))
	for i, name := range names {
		data, err := patches.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all[i] = Patch{name, data}
	}
	return all, nil
}

// Env is the script's environment.
func Env() []string {
	return []string{
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin",
		"HOME=/nonexistent",
		"LC_ALL=C",
		"TZ=UTC",
		"SOURCE_DATE_EPOCH=0",
		"PYTHON_COMMAND=/usr/bin/python3",
		"PYTHONHASHSEED=0",
	}
}
