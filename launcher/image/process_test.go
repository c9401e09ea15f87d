package image

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kraudcloud/kattest/guest/pod"
)

func imageWith(c v1.Config) *Image { return &Image{config: v1.ConfigFile{Config: c}} }

func TestProcess(t *testing.T) {
	sh, none := "/bin/sh", ""
	base := v1.Config{Entrypoint: []string{"/entry"}, Cmd: []string{"serve", "-v"}}
	for _, tt := range []struct {
		name   string
		config v1.Config
		o      Overrides
		want   func(*pod.Process)
	}{
		{"image's own", base, Overrides{}, func(p *pod.Process) { p.Args = []string{"/entry", "serve", "-v"} }},
		{"arguments", base, Overrides{Args: []string{"--", "x"}}, func(p *pod.Process) { p.Args = []string{"/entry", "--", "x"} }},
		{"entrypoint", base, Overrides{Entrypoint: &sh}, func(p *pod.Process) { p.Args = []string{"/bin/sh"} }},
		{"both", base, Overrides{Entrypoint: &sh, Args: []string{"-c", "x"}}, func(p *pod.Process) { p.Args = []string{"/bin/sh", "-c", "x"} }},
		{"no entrypoint", base, Overrides{Entrypoint: &none, Args: []string{"x"}}, func(p *pod.Process) { p.Args = []string{"x"} }},
		{
			"environment",
			v1.Config{Cmd: []string{"x"}, Env: []string{"PATH=/p", "A=1", "B=2", "A=3"}},
			Overrides{Hostname: "h", Env: []EnvVar{{Name: "B", Value: "b=c"}, {Name: "N", Value: ""}, {Name: "A", Unset: true}}},
			func(p *pod.Process) { p.Args, p.Env = []string{"x"}, []string{"PATH=/p", "HOSTNAME=h", "B=b=c", "N="} },
		},
		{
			"the rest of the image",
			v1.Config{Cmd: []string{"x"}, User: "mysql:mysql", WorkingDir: "srv/./x", StopSignal: "SIGRTMIN+3"},
			Overrides{},
			func(p *pod.Process) {
				p.Args, p.User, p.WorkingDir, p.StopSignal = []string{"x"}, "mysql:mysql", "/srv/x", "SIGRTMIN+3"
			},
		},
		{
			"the rest of the options",
			v1.Config{Cmd: []string{"x"}, User: "a", WorkingDir: "/b", StopSignal: "SIGINT"},
			Overrides{User: "1:2", WorkingDir: "/c/", StopSignal: "3"},
			func(p *pod.Process) {
				p.Args, p.User, p.WorkingDir, p.StopSignal = []string{"x"}, "1:2", "/c", "SIGQUIT"
			},
		},
		{"capabilities", v1.Config{Cmd: []string{"x"}}, Overrides{CapDrop: []string{"ALL"}, CapAdd: []string{"net_admin", "CAP_CHOWN"}}, func(p *pod.Process) {
			p.Args, p.Capabilities = []string{"x"}, []string{"CAP_CHOWN", "CAP_NET_ADMIN"}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := pod.Process{Env: []string{defaultPath, "HOSTNAME=" + tt.o.Hostname}, WorkingDir: "/", Capabilities: pod.DefaultCapabilities, StopSignal: "SIGTERM"}
			tt.want(&want)
			got, err := imageWith(tt.config).Process(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestProcessRefuses(t *testing.T) {
	none := ""
	for _, tt := range []struct {
		config v1.Config
		o      Overrides
		err    string
	}{
		{v1.Config{}, Overrides{}, "the image names no command"},
		{v1.Config{Entrypoint: []string{"x"}, Cmd: []string{"y"}}, Overrides{Entrypoint: &none}, "the image names no command"},
		{v1.Config{Cmd: []string{"x"}, Env: []string{"A"}}, Overrides{}, `the image's Env[0]: "A" is not NAME=value`},
		{v1.Config{Cmd: []string{"x"}, StopSignal: "99"}, Overrides{}, "no signal has the number 99"},
		{v1.Config{Cmd: []string{"x"}}, Overrides{StopSignal: "STOPP"}, `unknown signal "STOPP"`},
		{v1.Config{Cmd: []string{"x"}}, Overrides{CapAdd: []string{"FLY"}}, `unknown capability "FLY"`},
		{v1.Config{Cmd: []string{"x"}}, Overrides{CapAdd: []string{"ALL"}}, `unknown capability "ALL"`},
	} {
		got, err := imageWith(tt.config).Process(tt.o)
		if err == nil || !strings.Contains(err.Error(), tt.err) || got.Args != nil {
			t.Errorf("got %v, %v, want error %q", got, err, tt.err)
		}
	}
}

func TestPorts(t *testing.T) {
	img := imageWith(v1.Config{ExposedPorts: map[string]struct{}{"3306/tcp": {}, "53/UDP": {}, "80": {}, "8000-8002": {}, "9/sctp": {}, "80/tcp": {}}})
	got, err := img.Ports()
	if err != nil {
		t.Fatal(err)
	}
	want := []pod.Port{{Port: 53, Protocol: "udp"}, {Port: 80, Protocol: "tcp"}, {Port: 3306, Protocol: "tcp"}, {Port: 8000, Protocol: "tcp"}, {Port: 8001, Protocol: "tcp"}, {Port: 8002, Protocol: "tcp"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"0/tcp", "65536", "x", "5-4", "-1"} {
		if got, err := imageWith(v1.Config{ExposedPorts: map[string]struct{}{bad: {}}}).Ports(); err == nil || got != nil {
			t.Errorf("%s: %v, %v, want an error", bad, got, err)
		}
	}
}
