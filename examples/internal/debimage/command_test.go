package debimage

import (
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	if err := replaceable(dir); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	if err := replaceable(filepath.Join(dir, "absent")); err != nil {
		t.Errorf("no folder: %v", err)
	}
	if _, err := layout.Write(filepath.Join(dir, "image"), empty.Index); err != nil {
		t.Fatal(err)
	}
	if err := replaceable(filepath.Join(dir, "image")); err != nil {
		t.Errorf("an image: %v", err)
	}
	if err := replaceable(dir); err == nil {
		t.Error("a folder with something else in it may be replaced")
	}
}
