package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
)

// timedRuns is how often each is run, in turn, after once that is not counted.
const timedRuns = 7

// compareTimes times whole processes over one job, on which they must agree, and
// beside them what no program can do without: hashing all the bytes.
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
	var times [3][]time.Duration
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
		if run > 0 {
			times[2] = append(times[2], timeHashing(files))
		}
		if digests[0] != digests[1] {
			fmt.Fprintf(cmd.OutOrStdout(), "kattest: %s\npython: %s\n", digests[0], digests[1])
			return &cli.Silent{Code: cli.ExitMismatch}
		}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "CPU time, median of %d (least to most), and how often kattest's goes into it:\n", timedRuns)
	for i, name := range []string{"kattest", "python", "hashing alone"} {
		fmt.Fprintf(cmd.OutOrStdout(), "%-14s %v (%v to %v)  %.1f\n", name, median(times[i]), slices.Min(times[i]), slices.Max(times[i]),
			median(times[i]).Seconds()/median(times[0]).Seconds())
	}
	return nil
}

// timeHashing takes the files' hashes, on one processor, as the digest needs them.
func timeHashing(files map[string][]byte) time.Duration {
	start := cpuTime()
	sha256.Sum256(files["kernel"])
	sha256.Sum256(files["initrd"])
	for page := range slices.Chunk(files["firmware"], measure.PageSize) {
		sha512.Sum384(page)
	}
	return cpuTime() - start
}

// cpuTime is that of this process until now.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
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
