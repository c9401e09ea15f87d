package cradle

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/stack"
)

// TestRunScripts runs testdata/run; KATTEST_UPDATE=1 rewrites what they compare
// with. Beside testscript's own, the scripts have
//
//	exits CODE ARG...  cradle-snp ARG... must end with that exit code
//	mkvm DIR           makes a VM folder with a boot stack that parses and does nothing
//	flip FILE          changes the last byte
//
// and the condition sev, for a host with a secure processor.
func TestRunScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "run"),
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("KATTEST_UPDATE") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"mkvm": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(makeVM(ts.MkAbs(args[0]), ts.MkAbs("stack")))
			},
			"flip": func(ts *testscript.TestScript, _ bool, args []string) {
				data, err := os.ReadFile(ts.MkAbs(args[0]))
				ts.Check(err)
				data[len(data)-1] ^= 1
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
			},
		},
		Condition: func(name string) (bool, error) {
			if name != "sev" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			_, err := os.Stat("/dev/sev")
			return err == nil, nil
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := cli.Main(New(), args[1:], strings.NewReader(""), ts.Stdout(), ts.Stderr()); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func makeVM(dir, stackDir string) error {
	if err := os.MkdirAll(stackDir, 0o700); err != nil {
		return err
	}
	s := stack.Stack{MediaType: stack.MediaType, Lock: strings.Repeat("0", 64), Cmdline: "console=ttyS0 it's"}
	for name, content := range map[string][]byte{
		stack.Firmware: firmware(),
		stack.Kernel:   make([]byte, 4096),
		stack.Initrd:   make([]byte, 512),
	} {
		if err := os.WriteFile(filepath.Join(stackDir, name), content, 0o600); err != nil {
			return err
		}
		f, err := stack.Describe(stackDir, name, "a test")
		if err != nil {
			return err
		}
		s.Files = append(s.Files, f)
	}
	manifest, err := s.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(stackDir, stack.Manifest), manifest, 0o600); err != nil {
		return err
	}
	return vm.Create(dir, vm.DefaultConfig(), stackDir, func(root *os.File) (pod.Spec, error) {
		_, err := root.Write(make([]byte, vm.BlockSize))
		return pod.Spec{
			MediaType: pod.MediaType,
			Image: pod.Image{
				Digest: "sha256:" + strings.Repeat("1", 64),
				Verity: pod.Verity{RootHash: pod.Hash{1}, DataBlocks: 1},
			},
			Process: pod.Process{Args: []string{"/bin/true"}, Env: []string{}, WorkingDir: "/", Capabilities: []string{}, StopSignal: "SIGTERM"},
			Network: pod.Network{Hostname: "guest"},
			Console: pod.ConsoleNone,
		}, err
	})
}

// firmware is the smallest that can be measured with kernel hashes: a table at
// the end that names a hash table, a reset vector and one metadata section.
func firmware() []byte {
	b := make([]byte, 64<<10)
	le := binary.LittleEndian
	const metadata = 0x1000
	m := b[len(b)-metadata:]
	copy(m, "ASEV")
	for i, v := range []uint32{28, 1, 1, 0x810000, 0x1000, 0x10} { // length, version, count; GPA, size, kernel hashes
		le.PutUint32(m[4+4*i:], v)
	}
	var table []byte
	for _, e := range []struct {
		guid string // as it stands in memory
		data []uint32
	}{
		{"1f3755723b3a044b927b1da6efa8d454", []uint32{0x810c00, 0x400}}, // SEV hash table
		{"de71f7007e1acb4f890e68c77e2fb44e", []uint32{0x80b004}},        // AP reset vector
		{"666588dc4a989847a75e5585a7bf67cc", []uint32{metadata}},        // SEV metadata
	} {
		for _, v := range e.data {
			table = le.AppendUint32(table, v)
		}
		table = le.AppendUint16(table, uint16(4*len(e.data)+18))
		table = append(table, unhex(e.guid)...)
	}
	table = le.AppendUint16(table, uint16(len(table)+18))
	table = append(table, unhex("de82b596b21ff745baeaa366c55a082d")...) // footer
	copy(b[len(b)-32-len(table):], table)
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
