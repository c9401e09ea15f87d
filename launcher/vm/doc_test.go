package vm

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/guest/pod"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "spec", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// example returns the page's first block in that language.
func example(t *testing.T, page, language string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)\n```" + language + "\n(.*?)\n```\n").FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("no %q block", language)
	}
	return m[1]
}

// The page's example is a spec, and has the HOST_DATA that the page gives.
func TestLaunchSpecPage(t *testing.T) {
	page := readDoc(t, "launch-spec.md")
	spec, err := pod.ParseText([]byte(example(t, page, "json")))
	if err != nil {
		t.Fatal(err)
	}
	hostData, err := spec.HostData()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(page, "\n```\n"+hostData.String()+"\n```\n") {
		t.Errorf("the page does not end in the example's HOST_DATA %s", hostData)
	}
	if !strings.Contains(page, pod.MediaType) {
		t.Errorf("the page does not name %s", pod.MediaType)
	}
	checkMembers(t, page, "", reflect.TypeFor[pod.Spec]())
}

func TestVMFolderPage(t *testing.T) {
	page := readDoc(t, "vm-folder.md")
	if _, err := ParseConfig([]byte(example(t, page, "json"))); err != nil {
		t.Error(err)
	}
	if !strings.Contains(page, MediaType) {
		t.Errorf("the page does not name %s", MediaType)
	}
	checkMembers(t, page, "", reflect.TypeFor[Config]())
}

// checkMembers wants a row for every member of a struct of this module.
func checkMembers(t *testing.T, page, prefix string, typ reflect.Type) {
	t.Helper()
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !strings.Contains(page, "\n| `"+prefix+name+"` |") {
			t.Errorf("the page has no row for %s%s", prefix, name)
		}
		inner, suffix := f.Type, "."
		if inner.Kind() == reflect.Slice {
			inner, suffix = inner.Elem(), "[]."
		}
		if inner.Kind() == reflect.Struct && strings.HasPrefix(inner.PkgPath(), "github.com/kraudcloud/kattest/") {
			checkMembers(t, page, prefix+name+suffix, inner)
		}
	}
}
