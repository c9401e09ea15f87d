package kattest_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure"
)

// Scripts find a boot stack in $WORK/stack, firmware images in $WORK, and in
// $WORK/bin what takes QEMU's place where it is put before the others in PATH:
// boots and ends in $WORK/bin/boots and $WORK/bin/ends. They may use:
//
//	exits CODE COMMAND [ARG...]  run a command that must end with that exit code
//	flip FILE OFFSET             change one byte
//	inspected FILE PROBED        the answer in JSON is what the packages say
func TestFirmwareScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/firmware",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache"))
			return errors.Join(clitest.WriteStack(filepath.Join(env.WorkDir, "stack"), "console=ttyS0 quiet"), writeFirmwares(env.WorkDir), writeQEMUs(env.WorkDir))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip, "inspected": inspected,
		},
	})
}

// writeFirmwares makes images with something wrong: the metadata of
// clitest.Firmware stands 0x200 bytes before the end, its section 0x10 bytes on.
func writeFirmwares(dir string) error {
	const section = 0x200 - 0x10
	with := func(at int, value uint32) []byte {
		b := clitest.Firmware()
		binary.LittleEndian.PutUint32(b[len(b)-section+at:], value)
		return b
	}
	var errs []error
	for name, b := range map[string][]byte{
		"empty.fd":     with(4, 0),
		"unknown.fd":   with(8, 9),
		"elsewhere.fd": with(0, 0x820000),
		"odd.fd":       append(make([]byte, 4096), with(4, 1)...),
		"none.fd":      make([]byte, 64<<10),
	} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	return errors.Join(errs...)
}

// writeQEMUs makes two programs that stand for QEMU: one in which every kernel
// and every shim runs, as in one with a firmware that compares nothing, and one
// that ends.
func writeQEMUs(dir string) error {
	var errs []error
	for name, script := range map[string]string{
		"boots": `grep -ao 'kattest-[A-Z2-7]*' shim.efi && exec sleep 60`,
		"ends":  `echo 'qemu-system-x86_64: no such thing' >&2; exit 1`,
	} {
		folder := filepath.Join(dir, "bin", name)
		text := "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'QEMU emulator version 1.2.3 (test)'; exit; fi\n" + script + "\n"
		errs = append(errs, os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "qemu-system-x86_64"), []byte(text), 0o755))
	}
	return errors.Join(errs...)
}

func inspected(ts *testscript.TestScript, _ bool, args []string) {
	var got struct {
		MediaType string `json:"mediaType"`
		measure.Inspection
		Launchable   bool `json:"launchable"`
		KernelHashes struct {
			Verdict probe.Verdict `json:"verdict"`
			Source  string        `json:"source"`
		} `json:"kernelHashes"`
		Probe *probe.Result `json:"probe"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &got))
	want, err := measure.InspectFirmware([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	if diff := cmp.Diff(want, got.Inspection); diff != "" {
		ts.Fatalf("inspection (-want +got):\n%s", diff)
	}
	if got.MediaType != "application/vnd.kattest.firmware.v1+json" || got.Launchable != want.Launchable() {
		ts.Fatalf("media type %q, launchable %v", got.MediaType, got.Launchable)
	}
	if probed := args[1] == "probed"; probed != (got.Probe != nil) || probed && got.Probe.Firmware != want.SHA256 {
		ts.Fatalf("probe %+v", got.Probe)
	}
}
