package launcher

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// sample is a machine in which every field shows.
func sample(p Platform) Machine {
	return Machine{
		Platform:  p,
		Accel:     TCG,
		Shape:     measure.Shape{VMM: measure.QEMU, VCPUs: 2, CPU: measure.CPU{Name: "EPYC-v4", Signature: 0x800f12}, GuestFeatures: 1},
		MemoryMiB: 512,
		Cmdline:   "console=ttyS0 quiet panic=-1",
		Network: Network{
			Guest:      netip.MustParsePrefix("10.0.2.15/24"),
			Gateway:    netip.MustParseAddr("10.0.2.2"),
			Nameserver: netip.MustParseAddr("10.0.2.3"),
			Agent:      netip.MustParseAddrPort("127.0.0.1:4001"),
			Forwards:   []vm.Forward{{HostAddress: netip.MustParseAddr("127.0.0.1"), HostPort: 3306, GuestPort: 3306, Protocol: "tcp"}},
		},
		Disks:     []Disk{{"scratch", scratchDisk, 1 << 30}, {"vol-data", "volumes/a,b.img", 0}},
		Policy:    Policy,
		HashTable: 0x810c00,
		HostData:  pod.Hash{1, 2, 3},
		CBitPos:   51,
	}
}

// TestArgs compares the lines with testdata/args.*. KATTEST_UPDATE=1 rewrites them.
func TestArgs(t *testing.T) {
	for _, p := range []Platform{Sim, SNP} {
		t.Run(p.String(), func(t *testing.T) {
			args, err := sample(p).Args()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "args."+p.String())
			got := strings.Join(args, "\n") + "\n"
			if os.Getenv("KATTEST_UPDATE") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestPlatformsDiffer: what sets the platforms apart is what the documentation
// says, and nothing else.
func TestPlatformsDiffer(t *testing.T) {
	sim, err := sample(Sim).options()
	if err != nil {
		t.Fatal(err)
	}
	snp, err := sample(SNP).options()
	if err != nil {
		t.Fatal(err)
	}
	only := func(a, b []option) (values []string) {
		for _, o := range a {
			if !slices.Contains(b, o) {
				values = append(values, o.name+" "+o.value)
			}
		}
		return values
	}
	base := "-machine q35,smm=off,vmport=off,hpet=off,sata=off,smbus=off,memory-backend=ram0"
	wantSim := []string{
		"-accel tcg",
		base,
		"-device loader,file=run/hashes.bin,addr=0x810c00,force-raw=on",
		"-chardev socket,id=psp,path=run/psp.sock,server=on,wait=off",
		"-device virtserialport,bus=serial0.0,nr=4,chardev=psp,name=kattest.psp",
	}
	wantSNP := []string{
		"-accel kvm",
		base + ",confidential-guest-support=sev0,kernel-irqchip=split",
		"-object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,host-data=AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	}
	if diff := cmp.Diff(wantSim, only(sim, snp)); diff != "" {
		t.Errorf("sim alone (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantSNP, only(snp, sim)); diff != "" {
		t.Errorf("snp alone (-want +got):\n%s", diff)
	}
}

func TestArgsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Machine)
		want   string
	}{
		{"no platform", func(m *Machine) { m.Platform = 0 }, "platform 0"},
		{"no accelerator", func(m *Machine) { m.Accel = 0 }, "accelerator 0"},
		{"another VMM", func(m *Machine) { m.Shape.VMM = 0 }, "not for QEMU"},
		{"other features", func(m *Machine) { m.Shape.GuestFeatures = 0x21 }, "guest features 0x21"},
		{"a CPU by signature", func(m *Machine) { m.Shape.CPU.Name = "" }, "by name, not by signature 0x800f12"},
		{"no vCPU", func(m *Machine) { m.Shape.VCPUs = 0 }, "0 vCPUs"},
		{"a device by a relative path", func(m *Machine) { m.SEVDevice = "sev" }, `device "sev" is not a path from the root`},
		{"no address", func(m *Machine) { m.Network.Guest = netip.Prefix{} }, "not IPv4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := sample(Sim)
			tt.change(&m)
			args, err := m.Args()
			if args != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, %v; want an error with %q", args, err, tt.want)
			}
		})
	}
}

// testDryRun hands the lines to a real QEMU, as far as it goes without SNP: the
// objects on a machine of type none, which checks their properties and values;
// all else under TCG on a guest that never runs.
func testDryRun(t *testing.T, q qemu) {
	m := sample(SNP)
	m.SEVDevice = "/dev/sev,1"
	m.IDBlock = signedBlock(t, measure.Digest{1}, Policy, true)
	m.Network.Agent = netip.MustParseAddrPort("127.0.0.1:0") // a fixed one may be taken
	m.Network.Forwards[0].HostPort = 0
	snp, err := m.options()
	if err != nil {
		t.Fatal(err)
	}
	none := []option{{"-machine", "none"}, {"-nodefaults", ""}, {"-display", "none"}, {"-S", ""}}
	t.Run("objects", func(t *testing.T) {
		options := none
		for _, o := range snp {
			if o.name == "-object" {
				options = append(options, o)
			}
		}
		if len(options) != 6 {
			t.Fatalf("%d options, want 4 and two objects", len(options))
		}
		q.dryRun(t, options, "")
	})
	for name, tt := range map[string]struct{ from, to, fault string }{
		"long host data":   {"host-data=", "host-data=AAAA", "parameter length of 35 not equal to 32"},
		"no such property": {"kernel-hashes=", "kernel-hash=", "kernel-hash"},
	} {
		t.Run(name+" is noticed", func(t *testing.T) {
			object := strings.Replace(m.snpObject(), tt.from, tt.to, 1)
			q.dryRun(t, append(none[:4:4], option{"-object", object}), tt.fault)
		})
	}
	t.Run("line", func(t *testing.T) {
		var options []option
		for _, o := range snp {
			switch {
			case strings.HasPrefix(o.value, "sev-snp-guest,"):
				continue
			case o.name == "-machine":
				o.value = strings.Replace(o.value, ",confidential-guest-support=sev0", "", 1)
			case o.name == "-accel":
				o.value = "tcg"
			}
			options = append(options, o)
		}
		q.dryRun(t, options, "")
	})
}

// dryRun starts QEMU, asks it to quit and wants exit status 0, or a complaint
// that names the fault.
func (q qemu) dryRun(t *testing.T, options []option, fault string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		specDisk:                  make([]byte, 4096),
		vm.RootFile:               make([]byte, 4096),
		hashTable:                 make([]byte, 176),
		scratchDisk:               make([]byte, 4096),
		"volumes/a,b.img":         make([]byte, 4096),
		"stack/" + stack.Firmware: make([]byte, 64<<10),
		"stack/" + stack.Kernel:   bootHeader(),
		"stack/" + stack.Initrd:   make([]byte, 4096),
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-qmp", "stdio"}
	for _, o := range options {
		if args = append(args, o.name); o.value != "" {
			args = append(args, o.value)
		}
	}
	cmd := q.command(ctx, args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"quit"}`)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if fault == "" {
		if err != nil {
			t.Errorf("%v\n%s", err, said.String())
		}
		return
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok || !strings.Contains(said.String(), fault) {
		t.Errorf("got %v, …%q; want a failure with %q", err, said.String()[max(0, said.Len()-300):], fault)
	}
}

// bootHeader is the start of a kernel, as much of it as QEMU looks at.
// Source: Linux 6.12, Documentation/arch/x86/boot.rst.
func bootHeader() []byte {
	b := make([]byte, 4096)
	b[0x1f1] = 1                                      // setup_sects
	copy(b[0x202:], "HdrS\x0f\x02")                   // header, version 2.15
	b[0x211] = 1                                      // loadflags: LOADED_HIGH
	binary.LittleEndian.PutUint32(b[0x22c:], 1<<31-1) // initrd_addr_max
	binary.LittleEndian.PutUint32(b[0x238:], 2047)    // cmdline_size
	return b
}
