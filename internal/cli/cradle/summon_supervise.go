package cradle

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/image"
)

// superviseFlags are summon's options for how the container lives, by docker's names.
type superviseFlags struct {
	terminal, stdin bool
	restart         string
	health          healthFlags
}

type healthFlags struct {
	command                                       string
	exec                                          []string
	none                                          bool
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
}

func (f *superviseFlags) add(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.terminal, "tty", "t", false, "give the container a terminal")
	flags.BoolVarP(&f.stdin, "interactive", "i", false, "keep standard input open for who attaches to it")
	flags.StringVar(&f.restart, "restart", "no", "when the container is started again: no, on-failure[:N], always or unless-stopped")
	flags.StringVar(&f.health.command, "health-cmd", "", "shell command that tells whether the container is well")
	flags.StringArrayVar(&f.health.exec, "health-exec", nil, "as --health-cmd without a shell: the program, then once more for each argument")
	flags.BoolVar(&f.health.none, "no-healthcheck", false, "leave out the image's healthcheck")
	flags.DurationVar(&f.health.interval, "health-interval", 0, "time between health checks (default 30s)")
	flags.DurationVar(&f.health.timeout, "health-timeout", 0, "most time that a health check takes (default 30s)")
	flags.DurationVar(&f.health.startPeriod, "health-start-period", 0, "time in which failed health checks do not count")
	flags.DurationVar(&f.health.startInterval, "health-start-interval", 0, "time between health checks in that period (default 5s)")
	flags.IntVar(&f.health.retries, "health-retries", 0, "failed health checks in a row that make it unhealthy (default 3)")
}

// apply puts what the flags and the image ask for into spec.
func (f superviseFlags) apply(spec *pod.Spec, img *image.Image) error {
	spec.Image.Volumes = img.Volumes()
	spec.Process.Terminal, spec.Process.Stdin = f.terminal, f.stdin
	var errs []error
	var err error
	if spec.Restart, err = parseRestart(f.restart); err != nil {
		errs = append(errs, fmt.Errorf("--restart: %w", err))
	}
	spec.Healthcheck, err = f.health.check(img)
	return errors.Join(append(errs, err)...)
}

func parseRestart(text string) (*pod.Restart, error) {
	policy, retries, counted := strings.Cut(text, ":")
	if policy == "no" && !counted {
		return nil, nil
	}
	r := &pod.Restart{Policy: pod.RestartPolicy(policy)}
	if counted {
		var err error
		if r.MaximumRetries, err = strconv.Atoi(retries); err != nil {
			return nil, fmt.Errorf("%q: %q is not a number", text, retries)
		}
	}
	return r, nil
}

// check is the image's healthcheck with what the flags change of it.
func (f healthFlags) check(img *image.Image) (*pod.Healthcheck, error) {
	changed := f.interval != 0 || f.timeout != 0 || f.startPeriod != 0 || f.startInterval != 0 || f.retries != 0
	if f.none {
		if changed || f.command != "" || len(f.exec) != 0 {
			return nil, errors.New("--no-healthcheck: stands with another option of the healthcheck")
		}
		return nil, nil
	}
	test := f.exec
	if f.command != "" {
		if test != nil {
			return nil, errors.New("--health-cmd: stands with --health-exec")
		}
		test = []string{"/bin/sh", "-c", f.command}
	}
	h, err := img.Healthcheck()
	if err != nil {
		return nil, err
	}
	if test != nil {
		if h == nil {
			h = image.NewHealthcheck()
		}
		h.Test = test
	}
	if h == nil {
		if changed {
			return nil, errors.New("the image has no healthcheck: give one with --health-cmd")
		}
		return nil, nil
	}
	for _, change := range []struct {
		to   *int64
		flag time.Duration
	}{
		{&h.Interval, f.interval},
		{&h.Timeout, f.timeout},
		{&h.StartPeriod, f.startPeriod},
		{&h.StartInterval, f.startInterval},
	} {
		if change.flag != 0 {
			*change.to = change.flag.Milliseconds()
		}
	}
	if f.retries != 0 {
		h.Retries = f.retries
	}
	return h, nil
}
