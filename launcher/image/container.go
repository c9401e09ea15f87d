package image

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
)

// Volumes returns the folders that the image declares to be volumes, sorted.
func (img *Image) Volumes() []string {
	var dirs []string
	for dir := range img.config.Config.Volumes {
		dirs = append(dirs, path.Join("/", dir))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// NewHealthcheck returns docker's defaults, without a command.
// Source: github.com/moby/moby, daemon/health.go.
func NewHealthcheck() *pod.Healthcheck {
	return &pod.Healthcheck{
		Interval: (30 * time.Second).Milliseconds(), Timeout: (30 * time.Second).Milliseconds(),
		StartInterval: (5 * time.Second).Milliseconds(), Retries: 3,
	}
}

// Healthcheck returns the image's healthcheck, or nil where it has none.
func (img *Image) Healthcheck() (*pod.Healthcheck, error) {
	c := img.config.Config.Healthcheck
	if c == nil || len(c.Test) == 0 || c.Test[0] == "NONE" {
		return nil, nil
	}
	h := NewHealthcheck()
	switch test := c.Test[1:]; {
	case c.Test[0] == "CMD" && len(test) > 0:
		h.Test = test
	case c.Test[0] == "CMD-SHELL" && len(test) == 1:
		shell := []string{"/bin/sh", "-c"}
		if len(img.config.Config.Shell) > 0 {
			shell = img.config.Config.Shell
		}
		h.Test = slices.Concat(shell, test)
	default:
		return nil, fmt.Errorf("the image's Healthcheck: %q is neither CMD and arguments nor CMD-SHELL and a line", c.Test)
	}
	if c.Retries < 0 || c.Interval < 0 || c.Timeout < 0 || c.StartPeriod < 0 {
		return nil, errors.New("the image's Healthcheck: a negative number")
	}
	for _, member := range []struct {
		to *int64
		in time.Duration
	}{{&h.Interval, c.Interval}, {&h.Timeout, c.Timeout}, {&h.StartPeriod, c.StartPeriod}} {
		if member.in != 0 {
			*member.to = max(1, member.in.Milliseconds())
		}
	}
	if c.Retries != 0 {
		h.Retries = c.Retries
	}
	return h, nil
}
