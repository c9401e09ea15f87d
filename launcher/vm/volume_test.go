package vm

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kraudcloud/kattest/guest/pod"
)

func TestCheckVolumesOfConfig(t *testing.T) {
	for _, tt := range []struct {
		err     string
		volumes []Volume
	}{
		{"volumes[0]: name \"\"", []Volume{{"", "a"}}},
		{"volumes[0]: name \"a\" and file \"\"", []Volume{{"a", ""}}},
		{"volumes[0]: name \"a\" and file \"b\\n\"", []Volume{{"a", "b\n"}}},
		{"volumes[1].name: \"a\" stands twice", []Volume{{"a", "x"}, {"a", "y"}}},
		{"volumes[1].file: \"./x\" stands twice", []Volume{{"a", "x"}, {"b", "./x"}}},
	} {
		c := DefaultConfig()
		c.Volumes = tt.volumes
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%v: %v, want %q", tt.volumes, err, tt.err)
		}
	}
}

func TestVolumes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vm")
	config := DefaultConfig()
	config.Volumes = []Volume{{"data", "volumes/data.img"}}
	withVolume := func(f *os.File) (pod.Spec, error) {
		spec, err := fill(1)(f)
		spec.Mounts = []pod.Mount{{Type: pod.MountVolume, Target: "/data", Size: pod.MinDiskSize, Name: "data", Key: "key"}}
		spec.Secrets = &pod.Secrets{Owners: []pod.Hash{{1}}, Expects: []pod.Secret{{Name: "key"}}}
		return spec, err
	}
	if err := Create(dir, DefaultConfig(), testStack(t), withVolume); err == nil || !strings.Contains(err.Error(), "names no file") {
		t.Errorf("without a file: %v", err)
	}
	if err := Create(dir, config, testStack(t), withVolume); err != nil {
		t.Fatal(err)
	}
	v, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	disk := v.VolumePath("data")
	if disk != filepath.Join(dir, "volumes", "data.img") || v.VolumePath("other") != "" {
		t.Errorf("disk at %q", disk)
	}
	for _, tt := range []struct {
		name, err string
		make      func() error
	}{
		{"smaller", "the spec says 67108864", func() error { return os.Truncate(disk, 4096) }},
		{"none", "no such file", func() error { return os.Remove(disk) }},
		{"a pipe", "neither a regular file nor a block device", func() error { return syscall.Mkfifo(disk, 0o600) }},
	} {
		if err := tt.make(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}
