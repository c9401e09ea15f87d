package vtpm_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// recorded reads a file that was recorded on Azure and that a public repository
// holds. None is kept here: docs/spec/tpm.md says where they are.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("KATTEST_AZURE_VTPM")
	if dir == "" {
		t.Skip("KATTEST_AZURE_VTPM names no folder with what was recorded on Azure (docs/spec/tpm.md)")
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Reports of Azure VMs: their runtime data is what they bind.
func TestRecordedHCL(t *testing.T) {
	for _, name := range []string{"hcl-report.bin", "cvm-hcl-report-snp.bin"} {
		t.Run(name, func(t *testing.T) {
			data := recorded(t, name)
			h, err := vtpm.ParseHCL(data)
			if err != nil {
				t.Fatal(err)
			}
			bound := h.ReportData()
			if !bytes.Equal(h.Report[0x50:0x90], bound[:]) {
				t.Error("the report binds other runtime data")
			}
			t.Log(h.AK)
		})
	}
	t.Run("of TDX", func(t *testing.T) {
		if _, err := vtpm.ParseHCL(recorded(t, "cvm-hcl-report-tdx.bin")); err == nil {
			t.Error("a report of TDX is read")
		}
	})
}

// peerQuote is a quote as the attestation service of confidential-containers keeps
// it: the signature bare, by RSASSA with SHA-256.
type peerQuote struct{ Signature, Message, PCRs []byte }

func (q peerQuote) tpmSignature() []byte {
	s := []byte{0x00, 0x14, 0x00, 0x0b}
	return append(binary.BigEndian.AppendUint16(s, uint16(len(q.Signature))), q.Signature...)
}

// hexQuote and numberQuote are its two JSON forms.
type hexQuote struct {
	Signature, Message string
	PCRs               []string
}

func (q hexQuote) read(t *testing.T) (p peerQuote) {
	t.Helper()
	decode := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	p.Signature, p.Message = decode(q.Signature), decode(q.Message)
	for _, v := range q.PCRs {
		p.PCRs = append(p.PCRs, decode(v)...)
	}
	return p
}

type numberQuote struct {
	Signature, Message []int
	PCRs               [][]int
}

func numbers(n []int) (b []byte) {
	for _, v := range n {
		b = append(b, byte(v))
	}
	return b
}

func (q numberQuote) read() (p peerQuote) {
	p.Signature, p.Message = numbers(q.Signature), numbers(q.Message)
	for _, v := range q.PCRs {
		p.PCRs = append(p.PCRs, numbers(v)...)
	}
	return p
}

// Quotes of Azure VMs, signed by the AK that their report binds.
func TestRecordedQuotes(t *testing.T) {
	for name, read := range map[string]func([]byte) (hcl []byte, q peerQuote){
		"evidence-v0.json":    readNumbers(t),
		"evidence-genoa.json": readNumbers(t),
		"evidence-v1.json":    readHex(t),
		"evidence-v2.json":    readHex(t),
	} {
		t.Run(name, func(t *testing.T) {
			hcl, q := read(recorded(t, name))
			h, err := vtpm.ParseHCL(hcl)
			if err != nil {
				t.Fatal(err)
			}
			bound := h.ReportData()
			if !bytes.Equal(h.Report[0x50:0x90], bound[:]) {
				t.Error("the report binds other runtime data")
			}
			quote, err := vtpm.VerifyQuote(h.AK, q.Message, q.tpmSignature())
			if err != nil {
				t.Fatal(err)
			}
			pcrs, err := quote.PCRs(q.PCRs)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("extraData %x, %d PCRs, %v", quote.ExtraData, len(pcrs), h.AK)
			q.PCRs[0] ^= 1
			if _, err := quote.PCRs(q.PCRs); err == nil {
				t.Error("another value is accepted")
			}
			for i := range q.Message {
				altered := bytes.Clone(q.Message)
				altered[i] ^= 1
				if _, err := vtpm.VerifyQuote(h.AK, altered, q.tpmSignature()); err == nil {
					t.Errorf("message altered at byte %d is accepted", i)
				}
			}
		})
	}
}

func readNumbers(t *testing.T) func([]byte) ([]byte, peerQuote) {
	return func(data []byte) ([]byte, peerQuote) {
		var e struct {
			Quote  numberQuote
			Report []int
		}
		if err := json.Unmarshal(data, &e); err != nil {
			t.Fatal(err)
		}
		return numbers(e.Report), e.Quote.read()
	}
}

func readHex(t *testing.T) func([]byte) ([]byte, peerQuote) {
	return func(data []byte) ([]byte, peerQuote) {
		var e struct {
			Quote  hexQuote `json:"tpm_quote"`
			Report string   `json:"hcl_report"`
		}
		if err := json.Unmarshal(data, &e); err != nil {
			t.Fatal(err)
		}
		hcl, err := base64.URLEncoding.DecodeString(e.Report)
		if err != nil {
			t.Fatal(err)
		}
		return hcl, e.Quote.read(t)
	}
}
