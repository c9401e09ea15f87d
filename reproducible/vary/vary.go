// Package vary makes a second build see another machine: another user, host name,
// time zone, locale, date, number of processors and order of directories. What
// such a build makes must be what the first one made.
//
// The folder that a build stands in and the umask are its caller's to vary.
// Programs that are linked statically, as Go's compiler is, keep this machine's
// date, processors and directories: they see the rest alone.
package vary

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/reproducible/sandbox"
)

// What the second build sees.
const (
	User       = 4321
	Hostname   = "elsewhere"
	TimeZone   = "Pacific/Chatham"
	Locale     = "C.UTF-8"
	Days       = 400 // ahead
	Processors = 7
)

// Text says what differs, for people.
func Text() string {
	return fmt.Sprintf("user %d, host name %s, time zone %s, locale %s, a date %d days ahead, %d processors, directories listed backwards",
		User, Hostname, TimeZone, Locale, Days, Processors)
}

// source is what is loaded into the programs of a second build, in C.
//
//go:embed preload/vary.c
var source []byte

// Digest names what a second build sees: lower-case hexadecimal.
func Digest() string {
	h := sha256.New()
	h.Write([]byte(Text()))
	h.Write(source)
	return hex.EncodeToString(h.Sum(nil))
}

// Where things stand inside.
const (
	library = "/tmp/vary.so"
	workdir = "/tmp/vary"
)

// Run runs the command as a second build does. dir is a folder for what is loaded
// into its programs, which the compiler of the command's own root makes there: the
// command must have a root with a C compiler, or none at all and static programs.
func Run(ctx context.Context, c sandbox.Command, dir string) error {
	c.User, c.Hostname = strconv.Itoa(User), Hostname
	c.Env = env(c.Env)
	if c.Root != "" {
		file, err := compile(ctx, c, dir)
		if err != nil {
			return fmt.Errorf("compiling what varies the build: %w", err)
		}
		c.Binds = append(c.Binds[:len(c.Binds):len(c.Binds)], sandbox.Bind{Host: file, Guest: library})
		c.Env = append(c.Env,
			"LD_PRELOAD="+library,
			"KATTEST_VARY_DAYS="+strconv.Itoa(Days),
			"KATTEST_VARY_CPUS="+strconv.Itoa(Processors))
	}
	return c.Run(ctx)
}

// env is the environment with another time zone and locale. Recipes name both.
func env(recipe []string) []string {
	varied := []string{"TZ=" + TimeZone, "LC_ALL=" + Locale, "LANG=" + Locale}
	for _, e := range recipe {
		switch name, _, _ := strings.Cut(e, "="); name {
		case "TZ", "LC_ALL", "LANG":
		default:
			varied = append(varied, e)
		}
	}
	return varied
}

func compile(ctx context.Context, c sandbox.Command, dir string) (string, error) {
	file := filepath.Join(dir, "vary.so")
	if _, err := os.Stat(file); err == nil || !errors.Is(err, os.ErrNotExist) {
		return file, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "vary.c"), source, 0o644); err != nil {
		return "", err
	}
	var output strings.Builder
	err := sandbox.Command{
		Root: c.Root, Binds: []sandbox.Bind{{Host: dir, Guest: workdir, Writable: true}}, Dir: workdir,
		Env:    []string{"PATH=/usr/bin:/bin"},
		Args:   []string{"gcc", "-shared", "-fPIC", "-O2", "-o", "vary.so", "vary.c"},
		Output: &output,
	}.Run(ctx)
	if err != nil {
		return "", fmt.Errorf("%w:\n%s", err, strings.TrimSpace(output.String()))
	}
	return file, nil
}
