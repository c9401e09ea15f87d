package cradle

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/pod"
)

func TestParseMount(t *testing.T) {
	here, err := filepath.Abs("d.img")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		in   string
		want pod.Mount
		file string
	}{
		{"type=tmpfs,target=/tmp", pod.Mount{Type: "tmpfs", Target: "/tmp"}, ""},
		{"type=tmpfs,dst=/tmp,tmpfs-size=64m,tmpfs-mode=700,ro", pod.Mount{Type: "tmpfs", Target: "/tmp", Size: 64 << 20, Mode: "0700", ReadOnly: true}, ""},
		{"type=volume,source=data,target=/data,size=10g,key=data.key", pod.Mount{Type: "volume", Name: "data", Target: "/data", Size: 10 << 30, Key: "data.key"}, "volumes/data.img"},
		{"type=volume,src=data,destination=/data,size=1T,key=k,file=d.img,readonly=false", pod.Mount{Type: "volume", Name: "data", Target: "/data", Size: 1 << 40, Key: "k"}, here},
		{"type=nfs,source=192.0.2.1:/a=b,target=/srv,readonly", pod.Mount{Type: "nfs", Source: "192.0.2.1:/a=b", Target: "/srv", ReadOnly: true}, ""},
	} {
		got, file, err := parseMount(tt.in)
		if err != nil || file != tt.file {
			t.Errorf("%q: file %q, %v", tt.in, file, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.in, diff)
		}
	}
	for in, want := range map[string]string{
		"":                                  `unknown key ""`,
		"type=tmpfs,target=/a,dst=/b":       "target stands twice",
		"type=tmpfs,size=0":                 `"0" is not a size`,
		"type=tmpfs,size=9t":                `"9t" is not a size`,
		"type=tmpfs,size=1x":                `"1x" is not a size`,
		"type=tmpfs,tmpfs-mode=8":           `mode: "8" is not an octal number`,
		"type=tmpfs,tmpfs-mode=10000":       `mode: "10000"`,
		"type=tmpfs,ro=perhaps":             `readonly: "perhaps"`,
		"type=tmpfs,source=x":               "source means nothing for a tmpfs",
		"type=bind,source=/srv,target=/srv": "a guest sees no folder of the host's",
		"type=nfs,file=x":                   "file is a volume's",
		"type=volume,volume-driver=local":   `unknown key "volume-driver"`,
	} {
		if got, file, err := parseMount(in); err == nil || !strings.Contains(err.Error(), want) || got != (pod.Mount{}) || file != "" {
			t.Errorf("%q: %+v, %q, %v, want an error with %q", in, got, file, err, want)
		}
	}
}

func TestParseTmpfs(t *testing.T) {
	for in, want := range map[string]pod.Mount{
		"/run":                           {Type: "tmpfs", Target: "/run"},
		"/run:":                          {Type: "tmpfs", Target: "/run"},
		"/run:rw,noexec,nosuid,size=64k": {Type: "tmpfs", Target: "/run", Size: 64 << 10},
		"/run:size=1g,mode=700,nodev,ro": {Type: "tmpfs", Target: "/run", Size: 1 << 30, Mode: "0700", ReadOnly: true},
	} {
		if got, err := parseTmpfs(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"/run:exec":     `option "exec" is none of`,
		"/run:uid=1000": `option "uid=1000" is none of`,
		"/run:size=":    `"" is not a size`,
		"/run:mode=9":   `mode: "9" is not an octal number`,
	} {
		if got, err := parseTmpfs(in); err == nil || !strings.Contains(err.Error(), want) || got != (pod.Mount{}) {
			t.Errorf("%q: %+v, %v, want an error with %q", in, got, err, want)
		}
	}
}
