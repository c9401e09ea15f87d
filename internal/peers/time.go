package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
)

const (
	timedRuns = 7 // of each, in turn, after one that is not counted
	wanted    = 8 // times less CPU time than the Python peer
)

// compareTimes times whole processes over one job, which must agree on it.
func compareTimes(cmd *cobra.Command, dir, kattest string, python []string) error {
	if python == nil {
		return cli.Usage(errors.New("--time without --python"), "")
	}
	r := rand.New(rand.NewPCG(1, 1))
	firmware := append(randomBytes(r, 4<<20), randomFirmware(r, true)...)
	files := map[string][]byte{
		"firmware": firmware[len(firmware)-4<<20:], "kernel": randomBytes(r, 12e6), "initrd": randomBytes(r, 40e6),
	}
	path := map[string]string{}
	for name, content := range files {
		path[name] = filepath.Join(dir, name)
		if err := os.WriteFile(path[name], content, 0o600); err != nil {
			return err
		}
	}
	commands := [2][]string{
		{
			kattest, "measure", "--firmware", path["firmware"], "--kernel", path["kernel"], "--initrd", path["initrd"],
			"--cmdline", "quiet", "--vcpus", "1", "--cpu", "EPYC-v4", "--output", "digest",
		},
		append(slices.Clone(python), "--mode=snp", "--ovmf="+path["firmware"], "--kernel="+path["kernel"], "--initrd="+path["initrd"],
			"--append=quiet", "--vcpus=1", "--vcpu-type=EPYC-v4"),
	}
	var times [2][]time.Duration
	for run := range timedRuns + 1 {
		var digests [2]string
		for i, command := range commands {
			digest, cpu, err := timeProcess(cmd, command)
			if err != nil {
				return err
			}
			digests[i] = digest
			if run > 0 {
				times[i] = append(times[i], cpu)
			}
		}
		if digests[0] != digests[1] {
			fmt.Fprintf(cmd.OutOrStdout(), "kattest: %s\npython: %s\n", digests[0], digests[1])
			return &cli.Silent{Code: cli.ExitMismatch}
		}
	}
	ours, theirs := median(times[0]), median(times[1])
	ratio := theirs.Seconds() / ours.Seconds()
	fmt.Fprintf(cmd.OutOrStdout(), "CPU time of the process, median of %d (least to most):\n", timedRuns)
	for i, name := range []string{"kattest", "python"} {
		fmt.Fprintf(cmd.OutOrStdout(), "%-8s %v (%v to %v)\n", name, median(times[i]), slices.Min(times[i]), slices.Max(times[i]))
	}
	fmt.Fprintf(cmd.OutOrStdout(), "ratio    %.1f, want %d\n", ratio, wanted)
	if ratio < wanted {
		return &cli.Silent{Code: cli.ExitMismatch}
	}
	return nil
}

func timeProcess(cmd *cobra.Command, command []string) (string, time.Duration, error) {
	process := exec.CommandContext(cmd.Context(), command[0], command[1:]...)
	var out, complaints bytes.Buffer
	process.Stdout, process.Stderr = &out, &complaints
	if err := process.Run(); err != nil {
		return "", 0, fmt.Errorf("running %s: %w: %.400s", command[0], err, strings.TrimSpace(complaints.String()))
	}
	state := process.ProcessState
	return strings.TrimSpace(out.String()), state.UserTime() + state.SystemTime(), nil
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
