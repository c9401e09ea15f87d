package kattest_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/kattest"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kattest": func() { os.Exit(cli.Main(kattest.New(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// Scripts find a boot stack in $WORK/stack, and may use:
//
//	exits CODE COMMAND [ARG...]  run a command that must end with that exit code
//	flip FILE OFFSET             change one byte
//	differ FILE...               no two of the files are alike
//	opens BUNDLE PUB             the release opens with that key
func TestMeasureScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/measure",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup:         func(env *testscript.Env) error { return makeMeasurable(filepath.Join(env.WorkDir, "stack")) },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": measureExits, "flip": measureFlip, "differ": measureDiffer, "opens": measureOpens,
		},
	})
}

func measureExits(ts *testscript.TestScript, _ bool, args []string) {
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

func measureFlip(ts *testscript.TestScript, _ bool, args []string) {
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := []byte(ts.ReadFile(args[0]))
	data[offset] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

func measureDiffer(ts *testscript.TestScript, _ bool, args []string) {
	seen := map[string]string{}
	for _, name := range args {
		data := ts.ReadFile(name)
		if other, ok := seen[data]; ok {
			ts.Fatalf("%s and %s are alike", name, other)
		}
		seen[data] = name
	}
}

func measureOpens(ts *testscript.TestScript, neg bool, args []string) {
	key, err := release.ParsePublicKey([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	r, err := release.Open([]byte(ts.ReadFile(args[0])), key)
	if neg {
		if !errors.Is(err, release.ErrSignature) {
			ts.Fatalf("error %v, want %v", err, release.ErrSignature)
		}
		return
	}
	ts.Check(err)
	if len(r.Components) != 3 || len(r.Table) != 4 || r.Cmdline != "console=ttyS0 quiet" {
		ts.Fatalf("release: %+v", r)
	}
}

// makeMeasurable makes a boot stack that can be measured, though not booted.
func makeMeasurable(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	s := stack.Stack{MediaType: stack.MediaType, Lock: strings.Repeat("0", 64), Cmdline: "console=ttyS0 quiet"}
	for _, f := range []struct {
		name string
		data []byte
	}{{stack.Firmware, leastFirmware()}, {stack.Kernel, []byte("kernel")}, {stack.Initrd, []byte("initrd")}} {
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

// leastFirmware has what a launch with kernel hashes needs: OVMF's table with
// reset vector, SEV hash table and metadata, and one section.
func leastFirmware() []byte {
	const size, hashPage, fromEnd, kernelHashes = 64 << 10, 0x10000, 0x200, 0x10
	words := func(values ...uint32) (b []byte) {
		for _, v := range values {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return b
	}
	// GUIDs as they stand in memory.
	entry := func(guid string, data []byte) []byte {
		id, err := hex.DecodeString(guid)
		if err != nil {
			panic(err)
		}
		b := binary.LittleEndian.AppendUint16(data, uint16(len(data)+18))
		return append(b, id...)
	}
	table := entry("de71f7007e1acb4f890e68c77e2fb44e", words(0x80b004))
	table = append(table, entry("1f3755723b3a044b927b1da6efa8d454", words(hashPage+0xc00, 0x400))...)
	table = append(table, entry("666588dc4a989847a75e5585a7bf67cc", words(fromEnd))...)
	footer := binary.LittleEndian.AppendUint16(nil, uint16(len(table)+18))
	id, err := hex.DecodeString("de82b596b21ff745baeaa366c55a082d")
	if err != nil {
		panic(err)
	}
	table = append(append(table, footer...), id...)
	image := make([]byte, size)
	copy(image[size-32-len(table):], table)
	copy(image[size-fromEnd:], append([]byte("ASEV"), words(16+12, 1, 1, hashPage, 4096, kernelHashes)...))
	return image
}
