// Package clitest is what the tests of the command trees share.
package clitest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Main runs the package's tests, whose scripts know the command name.
func Main(m *testing.M, name string, root func() *cobra.Command) {
	testscript.Main(m, map[string]func(){
		name: func() { os.Exit(cli.Main(root(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// Exits is the script command exits CODE COMMAND [ARG...]: it runs a command
// that must end with that exit code.
func Exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// Flip is the script command flip FILE OFFSET: it changes one byte.
func Flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := []byte(ts.ReadFile(args[0]))
	data[offset] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// Kernel and Initrd are the content of those files of a stack.
const (
	Kernel = "kernel"
	Initrd = "initrd"
)

// WriteStack makes a boot stack that can be measured, though not booted.
func WriteStack(dir, cmdline string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	s := stack.Stack{MediaType: stack.MediaType, Lock: strings.Repeat("0", 64), Cmdline: cmdline}
	for _, f := range []struct {
		name string
		data []byte
	}{{stack.Firmware, Firmware()}, {stack.Kernel, []byte(Kernel)}, {stack.Initrd, []byte(Initrd)}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return err
		}
		file, err := stack.Describe(dir, f.name, "test")
		if err != nil {
			return err
		}
		s.Files = append(s.Files, file)
	}
	b, err := s.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, stack.Manifest), b, 0o600)
}

// Probed leaves the result of a probe of the stack's firmware in a cache folder,
// as 'kattest firmware --probe' would if the firmware could boot, and has the
// script find it there.
func Probed(env *testscript.Env, enforced bool) error {
	cache := filepath.Join(env.WorkDir, ".cache")
	env.Setenv("XDG_CACHE_HOME", cache)
	r := probe.Result{
		MediaType: probe.MediaType, Firmware: sha256.Sum256(Firmware()), Verdict: probe.NotEnforced,
		Boots: []probe.Boot{{Case: "right hashes", Booted: true, Ended: probe.Ran}},
		QEMU:  "10.0.2", Accel: "tcg", Time: time.Unix(1e9, 0).UTC(),
	}
	wrong := probe.Boot{Case: "wrong hashes", Booted: true, Ended: probe.Ran}
	if enforced {
		r.Verdict, wrong.Booted, wrong.Ended = probe.Enforced, false, probe.Spent
	}
	for range 6 {
		r.Boots = append(r.Boots, wrong)
	}
	return r.Save(filepath.Join(cache, "kattest", "firmware"))
}

// Firmware is the least image that can be measured with kernel hashes: OVMF's
// table with reset vector, SEV hash table and metadata of one section.
func Firmware() []byte {
	const size, hashPage, metadata, kernelHashes = 64 << 10, 0x810000, 0x200, 0x10
	words := func(values ...uint32) (b []byte) {
		for _, v := range values {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return b
	}
	var table []byte
	entry := func(id string, data []byte) {
		table = append(table, data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(len(data)+18))
		table = append(table, guid(id)...)
	}
	entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", words(0x80b004))
	entry("7255371f-3a3b-4b04-927b-1da6efa8d454", words(hashPage+0xc00, 0x400))
	entry("dc886566-984a-4798-a75e-5585a7bf67cc", words(metadata))
	table = binary.LittleEndian.AppendUint16(table, uint16(len(table)+18))
	table = append(table, guid("96b582de-1fb2-45f7-baea-a366c55a082d")...)
	image := make([]byte, size)
	copy(image[size-32-len(table):], table)
	copy(image[size-metadata:], append([]byte("ASEV"), words(16+12, 1, 1, hashPage, 4096, kernelHashes)...))
	return image
}

// guid encodes a GUID as UEFI does: its first three groups little-endian.
func guid(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil {
		panic(err)
	}
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}
