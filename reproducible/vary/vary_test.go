package vary_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/sandbox"
	"github.com/kraudcloud/kattest/reproducible/vary"
)

// packages are those of the clean root that a shell and a C compiler need.
var packages = []string{
	"base-files", "binutils", "binutils-common", "binutils-x86-64-linux-gnu", "coreutils", "cpp-12", "dash", "gcc", "gcc-12",
	"libacl1", "libattr1", "libbinutils", "libc6", "libc6-dev", "libctf-nobfd0", "libctf0", "libgcc-12-dev", "libgcc-s1",
	"libgmp10", "libgprofng0", "libisl23", "libjansson4", "libmpc3", "libmpfr6", "libpcre2-8-0", "libselinux1", "libstdc++6",
	"libzstd1", "linux-libc-dev", "usrmerge", "zlib1g",
}

// root unpacks them from the lock file of the checkout, with two folders whose
// order can be seen.
func root(t *testing.T) string {
	t.Helper()
	l, err := lock.Load("../lock.json")
	if err != nil {
		t.Fatal(err)
	}
	inputs := slices.DeleteFunc(l.Set("build-root"), func(in lock.Input) bool { return !slices.Contains(packages, in.Name) })
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	debs, err := (&fetch.Fetcher{Cache: filepath.Join(cache, "kattest")}).GetAll(t.Context(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := debian.Extract(t.Context(), debs, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"proc", "dev", "tmp", "order/a", "order/b", "order/c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Each line of the script is something that a build could let into its result. It
// must be seen to differ, or a second build would prove nothing of it.
func TestRun(t *testing.T) {
	script := `
echo user $(id -u)
echo group $(id -g)
echo host $(uname -n)
echo zone $TZ
echo locale $LC_ALL
echo processors $(nproc)
echo days $(($(date +%s) / 86400))
echo order $(ls -U /order)
echo kept $KEPT
`
	dir := root(t)
	var first, second strings.Builder
	c := sandbox.Command{
		Root: dir, Env: []string{"PATH=/usr/bin:/bin", "TZ=UTC", "LC_ALL=C", "KEPT=of the recipe"}, Args: []string{"sh", "-c", script},
	}
	c.Output = &first
	if err := c.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, first.String())
	}
	c.Output = &second
	if err := vary.Run(t.Context(), c, filepath.Join(t.TempDir(), "vary")); err != nil {
		t.Fatalf("%v\n%s", err, second.String())
	}
	before, after := values(first.String()), values(second.String())
	day, later := number(t, before["days"]), number(t, after["days"])
	if today := time.Now().Unix() / 86400; today-day > 1 || later-day < vary.Days || later-day > vary.Days+1 {
		t.Errorf("it is day %d, the first build's is %d, the second's %d", today, day, later)
	}
	order := strings.Fields(before["order"])
	slices.Reverse(order)
	want := map[string]string{
		"user": fmt.Sprint(vary.User), "group": fmt.Sprint(vary.User), "host": vary.Hostname, "zone": vary.TimeZone,
		"locale": vary.Locale, "processors": fmt.Sprint(vary.Processors), "days": after["days"],
		"order": strings.Join(order, " "), "kept": "of the recipe",
	}
	if diff := cmp.Diff(want, after); diff != "" {
		t.Errorf("the second build (-want +got):\n%s", diff)
	}
	for name, value := range before {
		if value == after[name] && name != "kept" {
			t.Errorf("%s is %q both times", name, value)
		}
	}
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func values(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[name] = value
	}
	return m
}
