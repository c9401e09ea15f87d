package verifier_test

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/verifier"
)

// A guest on the simulated platform, and the lies about it.
func TestSimulated(t *testing.T) {
	load := func() *simpsp.PSP {
		psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
		if err != nil {
			t.Fatal(err)
		}
		return psp
	}
	psp, stranger := load(), load()
	chain, err := verifier.ParseSimulatedChain(psp.Chain())
	if err != nil {
		t.Fatal(err)
	}
	exporter := bytes.Repeat([]byte{7}, evidence.ExporterSize)
	nonce, key, spec, digest := []byte("0123456789abcdef"), []byte("key"), [32]byte{1}, measure.Digest{2}
	good := evidence.Evidence{Nonce: nonce, PublicKey: key, Exporter: exporter}
	guest := psp.Launch(digest, spec, 0x30000)
	input := func(p *simpsp.PSP, e evidence.Evidence, vmpl uint32, policy uint64) verifier.Input {
		g := p.Launch(digest, spec, policy)
		report := g.Report(e.ReportData(), vmpl)
		in := parse(t, append(report[:], guest.Certificates()...))
		in.Evidence = &e
		return in
	}
	for _, tt := range []struct {
		name    string
		in      verifier.Input
		change  func(*verifier.Policy)
		verdict verifier.Verdict
		fails   []verifier.Code
	}{
		{"good", input(psp, good, 0, 0x30000), nil, verifier.Verified, nil},
		{"not trusted", input(psp, good, 0, 0x30000), func(p *verifier.Policy) { p.Simulated = nil }, verifier.Forged, []verifier.Code{"certificate.chain"}},
		{"another chip's certificate", input(stranger, good, 0, 0x30000), nil, verifier.Forged, []verifier.Code{"certificate.chip-id", "signature"}},
		{"replayed", input(psp, good, 0, 0x30000), func(p *verifier.Policy) { p.Nonce = []byte("another nonce...") }, verifier.Mismatch, []verifier.Code{"nonce"}},
		{"other spec", input(psp, good, 0, 0x30000), func(p *verifier.Policy) { p.HostData = &[32]byte{9} }, verifier.Mismatch, []verifier.Code{"host-data"}},
		{"other measurement", input(psp, good, 0, 0x30000), func(p *verifier.Policy) { p.References[0].Measurement[0]++ }, verifier.Mismatch, []verifier.Code{"measurement"}},
		{"other vCPUs", input(psp, good, 0, 0x30000), func(p *verifier.Policy) { p.VCPUs = 2 }, verifier.Mismatch, []verifier.Code{"measurement"}},
		{"other TLS key", input(psp, good, 0, 0x30000), func(p *verifier.Policy) { p.TLSKey = []byte("other") }, verifier.Forged, []verifier.Code{"tls-key"}},
		{"other connection", input(psp, good, 0, 0x30000), func(p *verifier.Policy) { p.TLSExporter = make([]byte, 32) }, verifier.Forged, []verifier.Code{"tls-key"}},
		{"VMPL 1, DEBUG, MIGRATE_MA", input(psp, good, 1, 0xf0000), nil, verifier.Mismatch, []verifier.Code{"vmpl", "policy.debug", "policy.migration"}},
		{"too low a TCB", input(psp, good, 0, 0x30000), func(p *verifier.Policy) {
			p.Products = map[verifier.Product]verifier.ProductPolicy{verifier.Milan: {Reported: verifier.TCB{SNP: 255}}}
		}, verifier.Mismatch, []verifier.Code{"tcb.reported"}},
		{"an empty policy", input(psp, good, 0, 0x30000), func(p *verifier.Policy) {
			*p = verifier.Policy{Time: p.Time, Simulated: p.Simulated}
		}, verifier.Mismatch, []verifier.Code{"nonce", "measurement", "host-data", "product"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := verifier.Policy{
				Time: time.Now(), Simulated: chain, Nonce: nonce, HostData: &spec, TLSKey: key, TLSExporter: exporter, Products: anyProduct(),
				References: []verifier.Reference{{Measurement: digest, VCPUs: 1, Label: "one vCPU"}},
			}
			if tt.change != nil {
				tt.change(&p)
			}
			r := verify(t, tt.in, p)
			if r.Verdict != tt.verdict || !r.Simulated {
				t.Errorf("verdict %v, simulated %v", r.Verdict, r.Simulated)
			}
			if diff := cmp.Diff(tt.fails, failures(r)); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("genuine under a simulated chain", func(t *testing.T) {
		g := readCorpus(t)[0]
		p := g.policy(t)
		p.Simulated = chain
		if r := verify(t, parse(t, g.report), p); r.Verdict != verifier.Forged || r.Simulated {
			t.Errorf("verdict %v, simulated %v", r.Verdict, r.Simulated)
		}
	})
}

func TestHostileCertificateTables(t *testing.T) {
	entry := func(offset, length uint32) []byte {
		b := make([]byte, 64)
		b[0] = 1
		binary.LittleEndian.PutUint32(b[16:], offset)
		binary.LittleEndian.PutUint32(b[20:], length)
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
		err  string
	}{
		{"sum overflows 32 bits", entry(0xffffffff, 0x30), "is not within"},
		{"length overflows 32 bits", entry(48, 0xfffffff0), "is not within"},
		{"over the entries", entry(0, 8), "is not within"},
		{"one byte too long", entry(48, 17), "is not within"},
		{"cut off", make([]byte, 23), "ends without"},
		{"no end", entry(48, 16)[:24], "ends without"},
		{"too large", make([]byte, 64<<10+1), "more than"},
		{"good", entry(48, 16), ""},
	} {
		_, err := verifier.ParseCertificateTable(tt.data)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add(append([]byte{3, 0, 0, 0}, make([]byte, 1180)...))
	l := newLab(f, "")
	for _, m := range machines() {
		f.Add(l.report(m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := verifier.ParseReport(data)
		if err != nil {
			if r != (verifier.Report{}) {
				t.Error("an error with a report")
			}
			return
		}
		if b := r.Bytes(); string(b[:]) != string(data) {
			t.Error("does not re-encode to itself")
		}
	})
}

func FuzzParseCertificateTable(f *testing.F) {
	f.Add(make([]byte, 24))
	f.Add(table(verifier.CertificateEntry{GUID: slotVCEK, Data: []byte("a")}, verifier.CertificateEntry{GUID: slotASK, Data: []byte("another")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := verifier.ParseCertificateTable(data)
		if err != nil && (table.Entries != nil || table.Bytes() != nil) {
			t.Error("an error with a table")
		}
		if err == nil && string(table.Bytes()) != string(data) {
			t.Error("does not re-encode to itself")
		}
	})
}
