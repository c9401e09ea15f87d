// Package kernel holds the recipe of the guest's kernel: a configuration
// fragment with the reason for each group of options, our patches with theirs,
// and the script that patches, configures and compiles inside the build's clean
// root.
//
// It checks that every line of the fragment took; the script checks that every
// patch fits exactly. Neither checks that what else the kernel's defaults
// switched on is wanted.
package kernel

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/internal/lazyre"
)

// Source is the Debian package of the kernel's source.
const Source = "linux-source-6.12"

// Folders and files that the script expects and leaves behind.
const (
	// Inputs holds, read-only, the source's tarball, Fragment, Script and the
	// patches.
	Inputs = "/in"
	// Work is writable and empty at first.
	Work = "/build"

	FragmentFile = "kattest.config"
	ScriptFile   = "build.sh"
	// ConfigFile and ImageFile stand in Work.
	ConfigFile = "config"
	ImageFile  = "bzImage"
)

// Arguments of the script, one for each of its two runs.
const (
	Configure = "configure"
	Compile   = "compile" // with the number of jobs
)

// Fragment is what is asked of the configuration, in the form of a .config.
//
//go:embed kattest.config
var Fragment []byte

// Script is a POSIX shell script.
//
//go:embed build.sh
var Script []byte

//go:embed *.patch
var patchFiles embed.FS

// Patch is a change of the kernel's source, as patch -p1 takes it. Its reason
// stands above its first line.
type Patch struct {
	Name string // of the file, which ends in .patch
	Data []byte
}

// Patches returns our patches in the order in which they are applied, that of
// their names.
func Patches() []Patch {
	names, err := fs.Glob(patchFiles, "*.patch")
	if err != nil {
		panic(err) // the pattern is malformed
	}
	patches := make([]Patch, len(names))
	for i, name := range names {
		data, err := patchFiles.ReadFile(name)
		if err != nil {
			panic(err) // it is embedded, or nothing would have matched
		}
		patches[i] = Patch{name, data}
	}
	return patches
}

// Env is the script's environment. Time, user and host stand in the kernel's
// banner: all are fixed, and none is a real one.
func Env() []string {
	return []string{
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin",
		"HOME=/nonexistent",
		"LC_ALL=C",
		"TZ=UTC",
		"SOURCE_DATE_EPOCH=0",
		"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
		"KBUILD_BUILD_USER=kattest",
		"KBUILD_BUILD_HOST=kattest",
		"KBUILD_BUILD_VERSION=1",
	}
}

var (
	setRE   = lazyre.New(`^(CONFIG_[A-Za-z0-9_]+)=(.+)$`)
	unsetRE = lazyre.New(`^# (CONFIG_[A-Za-z0-9_]+) is not set$`)
)

// options reads a .config or a fragment: the value of every option that is set,
// and "n" for those that it names as not set. Other lines are comments.
func options(config []byte) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(string(config)) {
		line = strings.TrimSpace(line)
		if m := setRE().FindStringSubmatch(line); m != nil {
			values[m[1]] = m[2]
		} else if m := unsetRE().FindStringSubmatch(line); m != nil {
			values[m[1]] = "n"
		}
	}
	return values
}

// Dropped compares what fragment asks for with the config that the kernel's
// own tools made of it. It returns one line for each option that has another
// value, sorted. An option that a kernel does not know is not set.
func Dropped(fragment, config []byte) []string {
	got := options(config)
	var dropped []string
	for name, want := range options(fragment) {
		value, ok := got[name]
		if !ok {
			value = "n"
		}
		if value != want {
			dropped = append(dropped, fmt.Sprintf("%s is %s, wanted %s", name, value, want))
		}
	}
	slices.Sort(dropped)
	return dropped
}
