package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func load(t testing.TB, name string) *Recording {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRecording(data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestHosts: what is not "pass" on each host, and what was found.
func TestHosts(t *testing.T) {
	type found map[string]string
	for _, tt := range []struct {
		host  string
		ready bool
		want  found
	}{
		{"ready", true, found{}},
		{"bios-off", false, found{
			"cpu.asids":             "fail: none of 253 for SEV-SNP guests: the lowest ASID without SEV-ES is 1",
			"msr.sme":               "fail: memory encryption is off: SYSCFG is 0x740000",
			"msr.snp":               "fail: SEV-SNP is off: SYSCFG is 0x740000",
			"rmp":                   "fail: the BIOS reserved no memory for it: RMP_BASE is 0x0, RMP_END 0x0",
			"rmp.coverage":          "skip: see rmp",
			"iommu":                 "fail: 0 groups",
			"iommu.translation":     "skip: see iommu",
			"kvm_amd.sev":           "fail: N",
			"kvm_amd.sev_es":        "fail: N",
			"kvm_amd.sev_snp":       "fail: N",
			"kvm.snp":               "fail: VM types 0x3",
			"kvm.memory-attributes": "fail: attributes 0x0",
			"kvm.guest-memfd":       "fail: 0",
			"psp":                   "fail: /dev/sev is not there",
			"psp.firmware":          "skip: see psp",
			"psp.state":             "skip: see psp",
			"snp.state":             "skip: see psp",
			"snp.rmp":               "skip: see psp",
			"snp.alias-check":       "skip: see psp",
			"snp.tcb":               "skip: see psp",
			"snp.chip-key":          "skip: see psp",
		}},
		{"old-software", false, found{
			"msr.snp":                "fail: SEV-SNP is off: SYSCFG is 0xf40000",
			"kernel":                 "fail: Linux 6.1.0-40-amd64",
			"kvm_amd.sev_snp":        "fail: /sys/module/kvm_amd/parameters/sev_snp is not there: the module is not loaded, or does not know it",
			"kvm.snp":                "fail: VM types 0x0",
			"kvm.memory-attributes":  "fail: attributes 0x0",
			"kvm.guest-memfd":        "fail: 0",
			"psp.firmware":           "fail: 1.49, build 3; 1.51 or later is wanted",
			"snp.state":              "unknown: /dev/sev: command 9: invalid argument (firmware error 0x0)",
			"snp.rmp":                "unknown: /dev/sev: command 9: invalid argument (firmware error 0x0)",
			"snp.alias-check":        "unknown: /dev/sev: command 9: invalid argument (firmware error 0x0)",
			"snp.tcb":                "unknown: /dev/sev: command 9: invalid argument (firmware error 0x0)",
			"snp.chip-key":           "unknown: /dev/sev: command 9: invalid argument (firmware error 0x0)",
			"qemu.sev-snp":           "fail: no sev-snp-guest",
			"qemu.cpu":               "fail: no EPYC-v4",
			"firmware.hash-table":    "fail: no place for the SEV hash table: QEMU stops at kernel-hashes=on",
			"firmware.kernel-hashes": "fail: no KERNEL_HASHES section around the hash table: no SEV hash table in its GUID table",
			"vsock":                  "warn: /dev/vhost-vsock is not there",
		}},
		{"no-rmp", false, found{
			"msr.snp":               "fail: SEV-SNP is off: SYSCFG is 0xf40000",
			"rmp":                   "fail: the BIOS reserved no memory for it: RMP_BASE is 0x0, RMP_END 0x1fff",
			"rmp.coverage":          "skip: see rmp",
			"kvm_amd.sev_snp":       "fail: N",
			"kvm.snp":               "fail: VM types 0xf",
			"kvm.memory-attributes": "fail: attributes 0x0",
			"kvm.guest-memfd":       "fail: 0",
			"snp.state":             "fail: uninitialised, 0 guests",
			"snp.rmp":               "fail: the secure processor has not initialised the RMP",
			"snp.alias-check":       "warn: the secure processor has not looked for memory with two addresses",
		}},
		{"custom-coverage", false, found{
			"msr.snp":               "fail: SEV-SNP is off: SYSCFG is 0xf40000",
			"rmp.coverage":          "fail: covers memory up to 128.0 GiB of 255.0 GiB",
			"kvm_amd.sev_snp":       "fail: N",
			"kvm.snp":               "fail: VM types 0xf",
			"kvm.memory-attributes": "fail: attributes 0x0",
			"kvm.guest-memfd":       "fail: 0",
			"snp.state":             "fail: uninitialised, 0 guests",
			"snp.rmp":               "fail: the secure processor has not initialised the RMP",
			"snp.alias-check":       "warn: the secure processor has not looked for memory with two addresses",
		}},
		{"passthrough", false, found{
			"msr.snp":               "fail: SEV-SNP is off: SYSCFG is 0xf40000",
			"iommu.translation":     "fail: the kernel was booted with iommu=pt",
			"kvm_amd.sev_snp":       "fail: N",
			"kvm.snp":               "fail: VM types 0xf",
			"kvm.memory-attributes": "fail: attributes 0x0",
			"kvm.guest-memfd":       "fail: 0",
			"snp.state":             "fail: uninitialised, 0 guests",
			"snp.rmp":               "fail: the secure processor has not initialised the RMP",
			"snp.alias-check":       "warn: the secure processor has not looked for memory with two addresses",
		}},
		{"unprivileged", true, found{
			"msr.sme":      "unknown: open /dev/cpu/0/msr: permission denied",
			"msr.snp":      "unknown: open /dev/cpu/0/msr: permission denied",
			"rmp":          "unknown: open /dev/cpu/0/msr: permission denied\nopen /dev/cpu/0/msr: permission denied",
			"rmp.coverage": "skip: see rmp",
			"memlock":      "warn: 8192 KiB of locked memory, less than the guest's 2048 MiB",
		}},
		{"no-access", false, found{
			"msr.sme":               "unknown: open /dev/cpu/0/msr: permission denied",
			"msr.snp":               "unknown: open /dev/cpu/0/msr: permission denied",
			"rmp":                   "unknown: open /dev/cpu/0/msr: permission denied\nopen /dev/cpu/0/msr: permission denied",
			"rmp.coverage":          "skip: see rmp",
			"kvm":                   "fail: open /dev/kvm: permission denied",
			"kvm.snp":               "skip: see kvm",
			"kvm.memory-attributes": "skip: see kvm",
			"kvm.guest-memfd":       "skip: see kvm",
			"psp":                   "fail: open /dev/sev: permission denied",
			"psp.firmware":          "skip: see psp",
			"psp.state":             "skip: see psp",
			"snp.state":             "skip: see psp",
			"snp.rmp":               "skip: see psp",
			"snp.alias-check":       "skip: see psp",
			"snp.tcb":               "skip: see psp",
			"snp.chip-key":          "skip: see psp",
			"memlock":               "warn: 8192 KiB of locked memory, less than the guest's 2048 MiB",
		}},
		{"unsigned", true, found{
			"psp.state":       "warn: uninitialised",
			"snp.alias-check": "warn: the secure processor has not looked for memory with two addresses",
			"snp.tcb":         "warn: bootloader=3,tee=0,snp=8,microcode=115; reported as bootloader=2,tee=0,snp=5,microcode=68",
			"snp.chip-key":    "warn: masked: reports are not signed by the chip's key",
			"tun":             "warn: /dev/net/tun is not there",
		}},
		{"turin", false, found{
			"qemu.cpu": "fail: no EPYC-Turin-v1",
		}},
		{"intel", false, found{
			"cpu":                    `fail: Intel(R) Xeon(R) Platinum 8488C (the processor is not AMD's: "GenuineIntel")`,
			"cpu.sev":                "skip: see cpu",
			"cpu.sev-es":             "skip: see cpu",
			"cpu.sev-snp":            "skip: see cpu",
			"cpu.vmpl":               "skip: see cpu.sev-snp",
			"cpu.c-bit":              "skip: see cpu.sev-snp",
			"cpu.asids":              "skip: see cpu.sev-snp",
			"msr.sme":                "skip: see cpu",
			"msr.snp":                "skip: see cpu",
			"rmp":                    "skip: see cpu.sev-snp",
			"rmp.coverage":           "skip: see rmp",
			"kvm_amd.sev":            "skip: see cpu",
			"kvm_amd.sev_es":         "skip: see cpu",
			"kvm_amd.sev_snp":        "skip: see cpu",
			"kvm.snp":                "fail: VM types 0x1",
			"kvm.memory-attributes":  "fail: attributes 0x0",
			"kvm.guest-memfd":        "fail: 0",
			"psp":                    "skip: see cpu",
			"psp.firmware":           "skip: see psp",
			"psp.state":              "skip: see psp",
			"snp.state":              "skip: see psp",
			"snp.rmp":                "skip: see psp",
			"snp.alias-check":        "skip: see psp",
			"snp.tcb":                "skip: see psp",
			"snp.chip-key":           "skip: see psp",
			"qemu":                   `fail: exec: "qemu-system-x86_64": executable file not found in $PATH`,
			"qemu.sev-snp":           "skip: see qemu",
			"qemu.cpu":               "skip: see qemu",
			"firmware":               "fail: stack/OVMF.fd is not there",
			"firmware.hash-table":    "skip: see firmware",
			"firmware.kernel-hashes": "skip: see firmware",
		}},
	} {
		t.Run(tt.host, func(t *testing.T) {
			r := load(t, tt.host)
			report := Examine(t.Context(), r, r.Want)
			got := found{}
			for _, c := range report.Checks {
				if c.Outcome != Pass {
					got[c.Name] = c.Outcome.String() + ": " + c.Found
				}
				checkFix(t, c)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if report.Ready != tt.ready {
				t.Errorf("ready is %v", report.Ready)
			}
		})
	}
}

// checkFix: what is wrong has a fix, what is right has none.
func checkFix(t *testing.T, c Check) {
	t.Helper()
	if want := c.Outcome != Pass && c.Outcome != Skip; want != (c.Fix != "") {
		t.Errorf("%s, %v: fix %q", c.Name, c.Outcome, c.Fix)
	}
	if c.Found == "" {
		t.Errorf("%s: nothing found", c.Name)
	}
}

// TestFixes: failures of the BIOS name its settings.
func TestFixes(t *testing.T) {
	for host, fixes := range map[string]map[string]string{
		"bios-off":        {"msr.sme": "SMEE", "msr.snp": "SEV-SNP Support", "cpu.asids": "SEV-ES ASID Space Limit", "rmp": "SNP Memory (RMP Table) Coverage", "iommu": "'IOMMU'"},
		"custom-coverage": {"rmp.coverage": "Custom"},
		"old-software":    {"kernel": "6.11", "psp.firmware": "update the BIOS", "qemu.sev-snp": "9.1", "firmware.hash-table": "kattest build"},
		"no-access":       {"kvm": "access to /dev/kvm", "psp": "access to /dev/sev"},
		"passthrough":     {"iommu.translation": "command line"},
	} {
		r := load(t, host)
		for _, c := range Examine(t.Context(), r, r.Want).Checks {
			if want := fixes[c.Name]; !strings.Contains(c.Fix, want) {
				t.Errorf("%s, %s: the fix %q does not name %q", host, c.Name, c.Fix, want)
			}
		}
	}
}

// TestWanted: what only some guests need fails for those alone.
func TestWanted(t *testing.T) {
	outcomes := func(change func(*Recording)) (got []string) {
		r := load(t, "ready")
		r.Devices["/dev/net/tun"] = Answer[bool]{Error: "no", Kind: NotExist}
		r.Devices["/dev/vhost-vsock"] = Answer[bool]{Error: "no", Kind: NotExist}
		change(r)
		for _, c := range Examine(t.Context(), r, r.Want).Checks {
			if c.Outcome != Pass {
				got = append(got, c.Name+" "+c.Outcome.String())
				checkFix(t, c)
			}
		}
		return got
	}
	for _, tt := range []struct {
		name   string
		change func(*Recording)
		want   []string
	}{
		{"neither", func(*Recording) {}, []string{"vsock warn", "tun warn"}},
		{"vsock", func(r *Recording) { r.Want.VSock = true }, []string{"vsock fail", "tun warn"}},
		{"bridge", func(r *Recording) { r.Want.Bridge = "br0" }, []string{"vsock warn", "tun fail", "bridge fail"}},
		{"a bridge that is there", func(r *Recording) {
			r.Want.Bridge = "br0"
			r.Files["/sys/class/net/br0/bridge/stp_state"] = Answer[string]{Value: "0\n"}
		}, []string{"vsock warn", "tun fail"}},
	} {
		if diff := cmp.Diff(tt.want, outcomes(tt.change)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestHere examines the machine on which this runs, and its recording: both say
// the same. A failure of its own each: what no one answered.
func TestHere(t *testing.T) {
	w := Want{CPU: "EPYC-v4", MemoryMiB: 512, Firmware: filepath.Join(t.TempDir(), "none.fd")}
	rec := NewRecorder(Local{}, w)
	live := Examine(t.Context(), rec, w)
	data, err := rec.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRecording(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(live, Examine(t.Context(), r, r.Want)); diff != "" {
		t.Errorf("live and recorded (-live +recorded):\n%s", diff)
	}
	for _, c := range live.Checks {
		checkFix(t, c)
		t.Logf("%-24s %-8v %s", c.Name, c.Outcome, c.Found)
	}
	empty := NewRecorder(nil, w).Recording
	for _, c := range Examine(t.Context(), &empty, w).Checks {
		if c.Outcome == Pass && c.Name != "bridge" { // none is wanted
			t.Errorf("%s passes on a host that says nothing: %s", c.Name, c.Found)
		}
	}
}

func TestCBitPos(t *testing.T) {
	for _, tt := range []struct {
		host   string
		change func(*Recording)
		want   int
		err    string
	}{
		{"ready", func(*Recording) {}, 51, ""},
		{"intel", func(*Recording) {}, 0, `not AMD's: "GenuineIntel"`},
		{"ready", func(r *Recording) { r.CPUs["0x80000000"] = Answer[Registers]{Value: Registers{0x80000008}} }, 0, "no memory encryption"},
		{"ready", func(r *Recording) { r.CPUs["0x8000001f"] = Answer[Registers]{Value: Registers{0x0f, 51}} }, 0, "no SEV-SNP"},
		{"ready", func(r *Recording) { r.CPUs = nil }, 0, "no answer"},
	} {
		r := load(t, tt.host)
		tt.change(r)
		got, err := CBitPos(r)
		if got != tt.want || (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %d, %v; want %d, %q", tt.host, got, err, tt.want, tt.err)
		}
	}
}

// TestAnswersOfAnotherSize: a driver that answers too little, or a state that
// no one knows, passes nothing.
func TestAnswersOfAnotherSize(t *testing.T) {
	r := load(t, "ready")
	r.PSPs["/dev/sev 1"] = Answer[HexBytes]{Value: HexBytes{1, 55, 1}}
	r.PSPs["/dev/sev 9"] = Answer[HexBytes]{Value: HexBytes{1, 55, 1}}
	for _, c := range Examine(t.Context(), r, r.Want).Checks {
		if aspect, _, _ := strings.Cut(c.Name, "."); (aspect == "snp" || c.Name == "psp.state") && c.Outcome != Unknown {
			t.Errorf("%s: %v, %s", c.Name, c.Outcome, c.Found)
		}
	}
	r = load(t, "ready")
	for _, answer := range r.PSPs {
		answer.Value[2] = 9
	}
	for _, c := range Examine(t.Context(), r, r.Want).Checks {
		if strings.HasSuffix(c.Name, ".state") && (c.Outcome != Warn || c.Found != "unknown state 9") {
			t.Errorf("%s: %v, %s", c.Name, c.Outcome, c.Found)
		}
	}
}

func TestKernelVersion(t *testing.T) {
	type version struct {
		Major, Minor int
		OK           bool
	}
	for release, want := range map[string]version{
		"6.12.95-amd64": {6, 12, true},
		"6.11":          {6, 11, true},
		"7.0-rc1\n":     {7, 0, true},
		"six":           {},
		"":              {},
	} {
		major, minor, ok := kernelVersion(release)
		if diff := cmp.Diff(want, version{major, minor, ok}); diff != "" {
			t.Errorf("%q (-want +got):\n%s", release, diff)
		}
	}
}

func TestOutcome(t *testing.T) {
	for o := Pass; o <= Skip; o++ {
		if got, err := ParseOutcome(o.String()); got != o || err != nil {
			t.Errorf("%v: %v, %v", o, got, err)
		}
	}
	for _, s := range []string{"", "outcome 0", "PASS"} {
		if o, err := ParseOutcome(s); err == nil || o != 0 {
			t.Errorf("%q: %v, %v", s, o, err)
		}
	}
	if b, err := Outcome(0).MarshalText(); err == nil || b != nil {
		t.Errorf("the zero outcome as text: %q, %v", b, err)
	}
}

func TestRecordingRefused(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                "mediaType",
		`{"mediaType":"x"}`: `mediaType: "x"`,
		`{"cpuid":{"0x0":{"value":"0x0 0x0 0x0"}}}`: "four numbers",
		`{"msr":{"0x0":{"value":"ff"}}}`:            "number such as 0x1f",
		`{"psp":{"x":{"value":"0G"}}}`:              "hexadecimal",
		`{"other":1}`:                               "other",
	} {
		r, err := ParseRecording([]byte(in))
		if r != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want an error with %q", in, r, err, want)
		}
	}
	if _, err := replay(map[string]Answer[int]{"x": {Error: "no", Kind: NotExist}}, "x"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("a recorded error is %v", err)
	}
}

// What is accepted, written again, is read as the same, and can be examined.
func FuzzParseRecording(f *testing.F) {
	for _, name := range []string{"ready", "intel", "old-software"} {
		data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecording(data)
		if err != nil {
			if r != nil {
				t.Fatalf("error %v with a value", err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r2, err := ParseRecording(again)
		if err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		if !reflect.DeepEqual(Examine(t.Context(), r, r.Want), Examine(t.Context(), r2, r2.Want)) {
			t.Fatalf("another report from\n%s", again)
		}
	})
}
