package launcher

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/launcher/doctor"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// recorded returns a host of doctor's.
func recorded(t testing.TB, name string) *doctor.Recording {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("doctor", "testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := doctor.ParseRecording(data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDefaultAccel(t *testing.T) {
	for _, tt := range []struct {
		name, cpuinfo string
		kvm           bool
		want          Accel
	}{
		{"AMD", "flags\t\t: fpu svm sse\n", true, KVM},
		{"Intel", "flags\t\t: fpu vmx sse\n", true, KVM},
		{"KVM without a processor's virtualization", "flags\t\t: fpu sse vmx2 nosvm\n", true, TCG},
		{"no /dev/kvm", "flags\t\t: svm\n", false, TCG},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := recorded(t, "ready")
			r.Files["/proc/cpuinfo"] = doctor.Answer[string]{Value: tt.cpuinfo}
			if !tt.kvm {
				r.Devices["/dev/kvm"] = doctor.Answer[bool]{Error: "no", Kind: doctor.NotExist}
			}
			if got := (Host{r}).DefaultAccel(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestCheckSNP: run refuses exactly the hosts on which doctor finds a failure,
// and says each failure by doctor's name.
func TestCheckSNP(t *testing.T) {
	files, err := filepath.Glob("doctor/testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d hosts, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			r := recorded(t, name)
			report := doctor.Examine(t.Context(), r, r.Want)
			err := Host{r}.CheckSNP(t.Context(), r.Want)
			if report.Ready != (err == nil) {
				t.Fatalf("doctor says ready: %v, run says: %v", report.Ready, err)
			}
			if err == nil {
				return
			}
			if !errors.Is(err, ErrNotReady) {
				t.Errorf("got error %v", err)
			}
			var want, got []string
			for _, c := range report.Failed() {
				want = append(want, c.Name)
			}
			for _, line := range strings.Split(err.Error(), "\n")[1:] {
				check, _, _ := strings.Cut(strings.TrimSpace(line), ":")
				got = append(got, check)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestRunNeverFallsBack: SNP on a host without it ends before QEMU starts, and
// leaves nothing in the folder.
func TestRunNeverFallsBack(t *testing.T) {
	v := &vm.VM{Dir: t.TempDir(), Config: vm.DefaultConfig()}
	exit, err := Host{recorded(t, "intel")}.Run(t.Context(), v, Options{Platform: SNP})
	if exit != 0 || !errors.Is(err, ErrNotReady) {
		t.Errorf("got %d, %v", exit, err)
	}
	left, err := os.ReadDir(v.Dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestWant: run asks for the folder's CPU model, memory and firmware, and the
// device that it is told.
func TestWant(t *testing.T) {
	v := &vm.VM{Dir: "d", Config: vm.DefaultConfig()}
	want := doctor.Want{CPU: "EPYC-v4", MemoryMiB: 2048, Firmware: "d/stack/OVMF.fd", SEVDevice: "/dev/sev1"}
	if diff := cmp.Diff(want, Want(v, "/dev/sev1")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	r := recorded(t, "ready")
	w := r.Want
	w.SEVDevice = "/dev/sev1"
	r.Devices["/dev/sev1"] = doctor.Answer[bool]{Error: fs.ErrNotExist.Error(), Kind: doctor.NotExist}
	if err := (Host{r}).CheckSNP(t.Context(), w); err == nil || !strings.Contains(err.Error(), "psp: /dev/sev1 is not there") {
		t.Errorf("a device that is not there: %v", err)
	}
}
