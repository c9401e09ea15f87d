package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
)

// comparison runs peers over launches.
type comparison struct {
	dir      string
	commands map[string][]string // by the peer's name
	runs     map[string]int      // by the peer's name
	launches int                 // that a peer knew
}

// compare returns what differs, a line for us and each peer, or nothing. An
// error is ours: the launch could not be measured, or a peer not be started.
func (c *comparison) compare(ctx context.Context, l launch) (string, error) {
	args, err := l.write(c.dir)
	if err != nil {
		return "", err
	}
	ours, err := l.digest()
	if err != nil {
		return "", fmt.Errorf("%v: %w", l, err)
	}
	var names []string
	for _, name := range l.kind.peers {
		if c.commands[name] != nil {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		c.launches++
	}
	answers, errs := make([]string, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		c.runs[name]++
		wg.Go(func() { answers[i], errs[i] = ask(ctx, c.commands[name], args) })
	}
	wg.Wait()
	different := fmt.Sprintf("%v\nkattest: %s\n", l, ours)
	differs := false
	for i, name := range names {
		if errs[i] != nil {
			return "", fmt.Errorf("%s: %w", name, errs[i])
		}
		different += fmt.Sprintf("%s: %s\n", name, answers[i])
		differs = differs || answers[i] != ours
	}
	if !differs {
		return "", nil
	}
	return different, nil
}

// ask returns what a peer prints, or that it refuses.
func ask(ctx context.Context, command, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], args...)...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		return "", fmt.Errorf("running %s: %w", command[0], err)
	}
	if err != nil {
		return fmt.Sprintf("refuses: %v: %.400s", err, strings.TrimSpace(complaints.String())), nil
	}
	return strings.TrimSpace(out.String()), nil
}

func (c *comparison) summary(out io.Writer, o options) {
	fmt.Fprintf(out, "%d launches of seed %d, %d of them known to a peer: no difference\n", o.n, o.seed, c.launches)
	for _, name := range peerNames() {
		if c.commands[name] != nil {
			fmt.Fprintf(out, "%s: %d digests\n", name, c.runs[name])
		}
	}
}
