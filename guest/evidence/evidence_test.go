package evidence_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/evidence"
)

// The vector is made by the formula of docs/spec/evidence.md in Python:
//
//	F = lambda b: struct.pack('<I', len(b)) + b
//	E = hashlib.sha256(bytes(32) + F(b'name') + F(b'value')).digest()
//	hashlib.sha512(F(b'kattest evidence v2') + F(b'0123456789abcdef') + F(b'key') + F(b'exporter') + F(E)).hexdigest()
func TestReportData(t *testing.T) {
	e := evidence.Evidence{
		Nonce: []byte("0123456789abcdef"), PublicKey: []byte("key"), Exporter: []byte("exporter"),
		Events: []evidence.Event{{Name: "name", Value: "value"}},
	}
	const want = "cb64761cc1ace9eba1f59f6dc52d36be865822ce9c62d6cf3d1b3f00d251e32fffe44866bb4c92df637b8f9b53279a1c22e20ede2134e9847910d109b8d55dae"
	if got := fmt.Sprintf("%x", e.ReportData()); got != want {
		t.Errorf("REPORT_DATA %s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	seed, err := json.Marshal(evidence.Evidence{
		MediaType: evidence.MediaType, Report: make([]byte, evidence.ReportSize), Nonce: make([]byte, 16), PublicKey: []byte{1}, Exporter: make([]byte, 32),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := evidence.Parse(data)
		if err != nil {
			if diff := cmp.Diff(evidence.Evidence{}, e); diff != "" {
				t.Errorf("an error with a value:\n%s", diff)
			}
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if e2, err := evidence.Parse(again); err != nil || cmp.Diff(e, e2) != "" {
			t.Errorf("does not re-encode to itself: %v", err)
		}
	})
}

func FuzzParseChallenge(f *testing.F) {
	f.Add([]byte(`{"mediaType":"` + evidence.ChallengeMediaType + `","nonce":"00112233445566778899aabbccddeeff"}`))
	f.Add([]byte(`{"nonce":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := evidence.ParseChallenge(data)
		if (err == nil) != (len(c.Nonce) > 0) {
			t.Errorf("nonce %s with error %v", c.Nonce, err)
		}
	})
}

func FuzzParseTPM(f *testing.F) {
	for _, e := range []evidence.TPM{
		{MediaType: evidence.TPMMediaType, HCL: []byte("HCLA"), Quote: &evidence.Quote{Message: []byte{1}, Signature: []byte{2}, PCRs: []byte{3}}, EventLog: []byte{4}},
		{MediaType: evidence.TPMMediaType, SVSM: &evidence.SVSM{
			Report: make([]byte, evidence.ReportSize), Nonce: make([]byte, evidence.MaxNonce), Manifest: []byte{1}, AK: []byte{2},
		}, Certificates: []byte{5}},
	} {
		seed, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := evidence.ParseTPM(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := evidence.ParseTPM(data)
		if err != nil {
			if diff := cmp.Diff(evidence.TPM{}, e); diff != "" {
				t.Errorf("an error with a value:\n%s", diff)
			}
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.ParseTPM(again); err != nil {
			t.Errorf("does not re-encode to itself: %v", err)
		}
	})
}
