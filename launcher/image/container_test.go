package image

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kraudcloud/kattest/guest/pod"
)

func TestVolumes(t *testing.T) {
	img := &Image{config: v1.ConfigFile{Config: v1.Config{Volumes: map[string]struct{}{"/srv/": {}, "data": {}, "/srv": {}}}}}
	if diff := cmp.Diff([]string{"/data", "/srv"}, img.Volumes()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := (&Image{}).Volumes(); got != nil {
		t.Errorf("of an image without volumes: %q", got)
	}
}

func TestHealthcheck(t *testing.T) {
	defaults := func(test ...string) *pod.Healthcheck {
		return &pod.Healthcheck{Test: test, Interval: 30000, Timeout: 30000, StartInterval: 5000, Retries: 3}
	}
	for name, tt := range map[string]struct {
		config *v1.HealthConfig
		want   *pod.Healthcheck
		bad    bool
	}{
		"missing":    {nil, nil, false},
		"inherited":  {&v1.HealthConfig{}, nil, false},
		"none":       {&v1.HealthConfig{Test: []string{"NONE"}}, nil, false},
		"program":    {&v1.HealthConfig{Test: []string{"CMD", "check", "me"}}, defaults("check", "me"), false},
		"shell":      {&v1.HealthConfig{Test: []string{"CMD-SHELL", "check me"}}, defaults("/bin/sh", "-c", "check me"), false},
		"no command": {&v1.HealthConfig{Test: []string{"CMD"}}, nil, true},
		"unknown":    {&v1.HealthConfig{Test: []string{"check"}}, nil, true},
		"negative":   {&v1.HealthConfig{Test: []string{"CMD", "check"}, Interval: -1}, nil, true},
		"times": {
			&v1.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Timeout: time.Microsecond, StartPeriod: time.Minute, Retries: 7},
			&pod.Healthcheck{Test: []string{"check"}, Interval: 1000, Timeout: 1, StartPeriod: 60000, StartInterval: 5000, Retries: 7}, false,
		},
	} {
		img := &Image{config: v1.ConfigFile{Config: v1.Config{Healthcheck: tt.config}}}
		got, err := img.Healthcheck()
		if (err != nil) != tt.bad {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
