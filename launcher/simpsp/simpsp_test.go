package simpsp

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/verify"

	"github.com/kraudcloud/kattest/guest/port"
)

// state is a PSP's folder for all tests: making one takes seconds.
var state = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "simpsp-test-*")
	if err != nil {
		return "", err
	}
	_, err = Load(filepath.Join(dir, "psp"))
	return filepath.Join(dir, "psp"), err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := state(); err == nil {
		os.RemoveAll(filepath.Dir(dir))
	}
	os.Exit(code)
}

func stateDir(tb testing.TB) string {
	tb.Helper()
	dir, err := state()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

func load(tb testing.TB) *PSP {
	tb.Helper()
	p, err := Load(stateDir(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestLoadIsStable(t *testing.T) {
	a, b := load(t), load(t)
	if a.hwid != b.hwid || !a.key.Equal(b.key) || !bytes.Equal(a.Chain(), b.Chain()) {
		t.Error("two loads of one folder differ")
	}
	if a.hwid == [64]byte{} {
		t.Error("no chip id")
	}
	dir := stateDir(t)
	chain, err := os.ReadFile(filepath.Join(dir, ChainFile))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(chain, a.Chain()) {
		t.Error("chain.pem differs from Chain()")
	}
	modes := map[string]os.FileMode{}
	for _, name := range []string{".", ChainFile, VCEKFile, KeyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		modes[name] = info.Mode().Perm()
	}
	want := map[string]os.FileMode{".": 0o700, ChainFile: 0o600, VCEKFile: 0o600, KeyFile: 0o600}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
}

// TestLoadTogether makes one processor from several sides at once.
func TestLoadTogether(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "kattest", "psp")
	var wg sync.WaitGroup
	psps := make([]*PSP, 2)
	for i := range psps {
		wg.Go(func() {
			p, err := Load(dir)
			if err != nil {
				t.Error(err)
			}
			psps[i] = p
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if psps[0].hwid != psps[1].hwid {
		t.Error("two processors for one folder")
	}
	left, err := filepath.Glob(filepath.Join(parent, "kattest", "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	hidden, err := filepath.Glob(filepath.Join(parent, "kattest", ".simpsp-*"))
	if err != nil || len(hidden) != 0 {
		t.Errorf("left behind: %v %v", hidden, err)
	}
}

func TestLoadDamaged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(dir string) error
		want   string
	}{
		{"no key", func(dir string) error { return os.Remove(filepath.Join(dir, KeyFile)) }, KeyFile},
		{"no chain", func(dir string) error { return os.Remove(filepath.Join(dir, ChainFile)) }, ChainFile},
		{"empty certificate", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, VCEKFile), nil, 0o600)
		}, "0 PEM blocks, want 1"},
		{"the chain for the certificate", func(dir string) error {
			return os.Rename(filepath.Join(dir, ChainFile), filepath.Join(dir, VCEKFile))
		}, "3 PEM blocks, want 1"},
		{"chain in another order", func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, ChainFile))
			if err != nil {
				return err
			}
			const end = "-----END CERTIFICATE-----\n"
			parts := strings.SplitAfter(string(data), end)
			return os.WriteFile(filepath.Join(dir, ChainFile), []byte(parts[1]+parts[0]+parts[2]), 0o600)
		}, "is not signed by"},
		{"chain without a revocation list", func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, ChainFile))
			if err != nil {
				return err
			}
			certs, _, _ := strings.Cut(string(data), "-----BEGIN X509 CRL")
			return os.WriteFile(filepath.Join(dir, ChainFile), []byte(certs), 0o600)
		}, "2 PEM blocks, want 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(stateDir(t))); err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			p, err := Load(dir)
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want an error with %q", p, err, tt.want)
			}
		})
	}
}

// TestChain judges the certificates as a verifier of AMD's would, with
// go-sev-guest as the peer for the extensions.
func TestChain(t *testing.T) {
	p := load(t)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(p.ark)
	intermediates.AddCert(p.ask)
	if _, err := p.vcek.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	for _, c := range []*x509.Certificate{p.vcek, p.ask, p.ark} {
		if c.SignatureAlgorithm != x509.SHA384WithRSAPSS {
			t.Errorf("%s: signed with %v", c.Subject, c.SignatureAlgorithm)
		}
		if !strings.HasPrefix(c.Subject.CommonName, "SIMULATED-") || !strings.HasPrefix(c.Issuer.CommonName, "SIMULATED-") {
			t.Errorf("%s, issued by %s: does not say SIMULATED", c.Subject, c.Issuer)
		}
		if c.Subject.String() == "" || len(c.Subject.OrganizationalUnit) != 1 || c.Subject.Country[0] != "US" {
			t.Errorf("subject %q has not AMD's attributes", c.Subject)
		}
	}
	got, err := kds.CertificateExtensions(p.vcek, abi.VcekReportSigner)
	if err != nil {
		t.Fatal(err)
	}
	parts := kds.DecomposeTCBVersion(kds.TCBVersion(tcb.encode()))
	version, err := kds.ComposeTCBParts(parts)
	if err != nil {
		t.Fatal(err)
	}
	want := &kds.Extensions{StructVersion: 0, ProductName: "Milan-B0", TCBVersion: version, HWID: p.hwid[:]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("extensions (-want +got):\n%s", diff)
	}
	if len(p.vcek.Extensions) != 11 {
		t.Errorf("%d extensions, a real VCEK has 11", len(p.vcek.Extensions))
	}
}

// TestLikeGenuine compares names, order and encodings of the extensions with
// those of a certificate that AMD issued.
func TestLikeGenuine(t *testing.T) {
	const file = "../../../shared/corpus/reports/05b7438a3d8d.vcek.der"
	der, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s is absent: no genuine VCEK to compare with", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	genuine, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	setTCB(t, tcbVersion{Bootloader: 4, SNP: 24, Microcode: 219}) // the genuine one's
	p, err := Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range genuine.Extensions {
		got := p.vcek.Extensions[i]
		if want.Id.Equal(oidHWID) {
			want.Value, got.Value = nil, nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("extension %d (-want +got):\n%s", i, diff)
		}
	}
	for i, want := range genuine.Subject.Names {
		if got := p.vcek.Subject.Names[i]; !got.Type.Equal(want.Type) {
			t.Errorf("name %d: %v, want %v", i, got.Type, want.Type)
		}
	}
}

func TestReport(t *testing.T) {
	p := load(t)
	measurement, hostData := [48]byte{1, 2, 3}, [32]byte{4, 5, 6}
	g := p.Launch(measurement, hostData, 0x30000)
	raw := g.Report([64]byte{7, 8, 9}, 1)

	if err := verify.SnpReportSignature(raw[:], p.vcek); err != nil {
		t.Error(err)
	}
	for _, offset := range []int{0, 0x50, 0x90, 0xc0, 0x18a, 0x29f, 0x2a0, 0x2e8} {
		damaged := raw
		damaged[offset] ^= 0x80
		if err := verify.SnpReportSignature(damaged[:], p.vcek); err == nil {
			t.Errorf("a flipped bit at %#x passes", offset)
		}
	}

	got, err := abi.ReportToProto(raw[:])
	if err != nil {
		t.Fatal(err)
	}
	t.Run("fields", func(t *testing.T) {
		type fields struct {
			Version, VMPL, Algorithm, FMS, Signer   uint32
			Policy, Current, Reported, Committed, L uint64
			Platform                                uint64
			Major, Minor, Build                     uint32
			Data, Measurement, HostData, ID, Chip   []byte
		}
		have := fields{
			got.Version, got.Vmpl, got.SignatureAlgo, got.Cpuid1EaxFms, got.SignerInfo,
			got.Policy, got.CurrentTcb, got.ReportedTcb, got.CommittedTcb, got.LaunchTcb,
			got.PlatformInfo,
			got.CurrentMajor, got.CurrentMinor, got.CurrentBuild,
			got.ReportData, got.Measurement, got.HostData, got.ReportId, got.ChipId,
		}
		const milan = 0xde1d000000000004
		want := fields{
			3, 1, 1, 0xa00f11, 0,
			0x30000, milan, milan, milan, milan,
			0x25,
			1, 55, 29,
			append([]byte{7, 8, 9}, make([]byte, 61)...), measurement[:], hostData[:], g.id[:], p.hwid[:],
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
	t.Run("one layout", func(t *testing.T) {
		again, err := abi.ReportToAbiBytes(got)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(raw[:], again); diff != "" {
			t.Errorf("go-sev-guest re-encodes the report otherwise (-want +got):\n%s", diff)
		}
	})
	t.Run("a report id a launch", func(t *testing.T) {
		if other := p.Launch(measurement, hostData, 0x30000); other.id == g.id || g.id == [32]byte{} {
			t.Error("two launches share a REPORT_ID")
		}
	})
}

func TestRefusedWithoutTrust(t *testing.T) {
	p := load(t)
	g := p.Launch([48]byte{}, [32]byte{}, 0x30000)
	raw := g.Report([64]byte{}, 0)
	attestation, err := abi.ReportCertsToProto(append(raw[:], g.Certificates()...))
	if err != nil {
		t.Fatal(err)
	}
	if err := verify.SnpAttestation(attestation, &verify.Options{DisableCertFetching: true}); err == nil {
		t.Error("a simulated report passes with AMD's roots")
	}
}

func TestCertificates(t *testing.T) {
	p := load(t)
	var table abi.CertTable
	if err := table.Unmarshal(p.Launch([48]byte{}, [32]byte{}, 0).Certificates()); err != nil {
		t.Fatal(err)
	}
	for guid, want := range map[string][]byte{abi.VcekGUID: p.vcek.Raw, abi.AskGUID: p.ask.Raw, abi.ArkGUID: p.ark.Raw} {
		got, err := table.GetByGUIDString(guid)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %d bytes, want %d", guid, err, len(got), len(want))
		}
	}
}

// pipe is a guest's side of the port, recorded.
type pipe struct {
	io.Reader
	bytes.Buffer
}

func (p *pipe) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func TestServe(t *testing.T) {
	p := load(t)
	g := p.Launch([48]byte{1}, [32]byte{2}, 0x30000)
	good := port.ReportRequest{ReportData: [64]byte{3}, VMPL: 2}.Encode()
	bad := good
	binary.LittleEndian.PutUint32(bad[0x40:], 4)
	keySel := good
	keySel[0x44] = 1

	rw := &pipe{Reader: io.MultiReader(bytes.NewReader(bad[:]), bytes.NewReader(keySel[:]), bytes.NewReader(good[:]))}
	if err := g.Serve(rw); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if rsp, err := port.ReadReportResponse(&rw.Buffer); err == nil || !strings.Contains(err.Error(), "STATUS 0x16") {
			t.Errorf("a malformed request: got %v, %v, want STATUS 0x16", rsp.Status, err)
		}
	}
	rsp, err := port.ReadReportResponse(&rw.Buffer)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify.SnpReportSignature(rsp.Report[:], p.vcek); err != nil {
		t.Error(err)
	}
	if rsp.Report[0x30] != 2 || rsp.Report[0x50] != 3 || rsp.Report[0x90] != 1 || rsp.Report[0xc0] != 2 {
		t.Errorf("VMPL %d, REPORT_DATA %d…, MEASUREMENT %d…, HOST_DATA %d…", rsp.Report[0x30], rsp.Report[0x50], rsp.Report[0x90], rsp.Report[0xc0])
	}
	if !bytes.Equal(rsp.Certificates, g.Certificates()) || rw.Len() != 0 {
		t.Errorf("%d bytes of certificates, %d left", len(rsp.Certificates), rw.Len())
	}

	if err := g.Serve(&pipe{Reader: bytes.NewReader(good[:95])}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a request that is cut off: got %v", err)
	}
}

// FuzzServe: whatever a guest writes, each whole request has one response, and
// a report comes only for a request that DecodeReportRequest takes.
func FuzzServe(f *testing.F) {
	p := load(f)
	g := p.Launch([48]byte{}, [32]byte{}, 0x30000)
	good := port.ReportRequest{VMPL: 3}.Encode()
	f.Add(good[:])
	f.Add(append(good[:], bytes.Repeat([]byte{0xff}, 100)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = data[:min(len(data), 8*port.ReportRequestSize)]
		rw := &pipe{Reader: bytes.NewReader(data)}
		err := g.Serve(rw)
		if whole := len(data)%port.ReportRequestSize == 0; whole != (err == nil) {
			t.Fatalf("%d bytes: %v", len(data), err)
		}
		for len(data) >= port.ReportRequestSize {
			_, refused := port.DecodeReportRequest([port.ReportRequestSize]byte(data))
			n := 4 + int(binary.LittleEndian.Uint32(rw.Bytes()))
			_, err := port.ReadReportResponse(bytes.NewReader(rw.Next(n)))
			if (refused == nil) != (err == nil) {
				t.Fatalf("request: %v, response: %v", refused, err)
			}
			data = data[port.ReportRequestSize:]
		}
		if rw.Len() != 0 {
			t.Fatalf("%d bytes more than there were requests", rw.Len())
		}
	})
}

// An empty folder, as a container's volume may be, takes a new processor.
func TestLoadTakesEmptyFolder(t *testing.T) {
	if _, err := Load(t.TempDir()); err != nil {
		t.Error(err)
	}
}

// setTCB makes simulated processors of other levels, until the test ends.
func setTCB(t *testing.T, levels tcbVersion) {
	t.Helper()
	before := tcb
	t.Cleanup(func() { tcb = before })
	tcb = levels
}

// A PSP of before the levels were raised would sign reports that its VCEK does
// not speak for.
func TestLoadOfAnotherTCB(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "psp")
	now := tcb
	setTCB(t, tcbVersion{Bootloader: 4, SNP: 24, Microcode: 219})
	if _, err := Load(dir); err != nil {
		t.Fatal(err)
	}
	setTCB(t, now)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "for another TCB") {
		t.Errorf("error %v", err)
	}
}
