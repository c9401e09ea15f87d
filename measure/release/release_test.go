package release

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kraudcloud/kattest/measure"
)

// sample is a release of three components and three launches.
func sample() Release {
	r := Release{
		Serial:       7,
		Components:   []Component{{"vmlinuz", 6, measure.Hash{1}}, {"OVMF.fd", 4 << 20, measure.Hash{2}}, {"initrd.cpio", 6, measure.Hash{3}}},
		Cmdline:      "console=ttyS0 quiet",
		Lock:         strings.Repeat("0", 64),
		Policy:       DefaultPolicy(),
		KernelHashes: Enforced,
		Firmware: measure.FirmwareState{
			Digest: measure.Digest{7}, Size: 4 << 20, ResetVector: 0x80b004, HashTable: 0x810c00,
			Sections: []measure.Section{
				{GPA: 0x800000, Size: 0x9000, Type: measure.SectionMemory},
				{GPA: 0x810000, Size: 0x1000, Type: measure.SectionKernelHashes},
			},
		},
	}
	shapes := []measure.Shape{shape(1, "EPYC-v4"), shape(2, "EPYC-v4"), shape(2, "EPYC-v3")}
	digests, err := r.Measure(shapes)
	if err != nil {
		panic(err)
	}
	for i, d := range digests {
		r.Table = append(r.Table, NewEntry(shapes[i], d))
	}
	return r
}

func shape(vcpus int, cpu string) measure.Shape {
	c, err := measure.ParseCPU(cpu)
	if err != nil {
		panic(err)
	}
	return measure.Shape{VMM: measure.QEMU, VCPUs: vcpus, CPU: c, GuestFeatures: measure.SNPActive}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustSign(t testing.TB, r Release, key crypto.Signer) []byte {
	t.Helper()
	b, err := Sign(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignAndOpen(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "P-384": p384, "Ed25519": ed, "RSA": rsaKey} {
		t.Run(name, func(t *testing.T) {
			b := mustSign(t, sample(), key)
			got, err := Open(b, key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sample(), got); diff != "" {
				t.Error(diff)
			}
			got, err = Open(b, newKey(t).Public())
			if !errors.Is(err, ErrSignature) {
				t.Errorf("with another key: %v, want %v", err, ErrSignature)
			}
			if diff := cmp.Diff(Release{}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// sigstore's own verifier takes our bundles and refuses what we refuse.
func TestBundleIsSigstores(t *testing.T) {
	key := newKey(t)
	good := mustSign(t, sample(), key)
	check := func(data []byte, key crypto.PublicKey) error {
		v, err := signature.LoadDefaultVerifier(key)
		if err != nil {
			t.Fatal(err)
		}
		trusted := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
			return root.NewExpiringKey(v, time.Time{}, time.Time{}), nil
		})
		judge, err := verify.NewVerifier(trusted, verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate())
		if err != nil {
			t.Fatal(err)
		}
		var b bundle.Bundle
		if err := b.UnmarshalJSON(data); err != nil {
			return err
		}
		_, err = judge.Verify(&b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey()))
		return err
	}
	if err := check(good, key.Public()); err != nil {
		t.Error(err)
	}
	if check(good, newKey(t).Public()) == nil {
		t.Error("another key does")
	}
	changed := change(t, good, func(tree map[string]any) {
		tree["dsseEnvelope"].(map[string]any)["payload"] = base64.StdEncoding.EncodeToString([]byte("{}"))
	})
	if check(changed, key.Public()) == nil {
		t.Error("another payload does")
	}
}

// in-toto's own code takes the statement.
func TestStatementIsInToto(t *testing.T) {
	b, err := sample().Statement()
	if err != nil {
		t.Fatal(err)
	}
	var s intoto.Statement
	if err := protojson.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	if n := len(s.GetSubject()); n != 3 || s.GetSubject()[0].GetName() != "OVMF.fd" || s.GetSubject()[0].GetDigest()["sha256"] != (measure.Hash{2}).String() {
		t.Errorf("subjects: %v", s.GetSubject())
	}
}

// change edits a bundle as a JSON tree.
func change(t *testing.T, data []byte, edit func(tree map[string]any)) []byte {
	t.Helper()
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	edit(tree)
	b, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenRefuses(t *testing.T) {
	key := newKey(t)
	good := mustSign(t, sample(), key)
	envelope := func(tree map[string]any) map[string]any { return tree["dsseEnvelope"].(map[string]any) }
	first := func(tree map[string]any) map[string]any {
		return envelope(tree)["signatures"].([]any)[0].(map[string]any)
	}
	edit := func(f func(tree map[string]any)) []byte { return change(t, good, f) }
	for _, tt := range []struct {
		name      string
		bundle    []byte
		signature bool // ErrSignature is wanted
		err       string
	}{
		{"empty", nil, false, "syntax error"},
		{"not JSON", []byte("bundle"), false, "syntax error"},
		{"too large", make([]byte, MaxBundle+1), false, "more than"},
		{"unknown member", edit(func(t map[string]any) { t["x"] = 1 }), false, "unknown field"},
		{"other version", edit(func(t map[string]any) { t["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.9+json" }), false, "v0.9"},
		{"no envelope", edit(func(t map[string]any) { delete(t, "dsseEnvelope") }), false, "dsseEnvelope"},
		{"other payload type", edit(func(t map[string]any) { envelope(t)["payloadType"] = "text/plain" }), false, "payloadType"},
		{"changed payload", edit(func(t map[string]any) {
			b, _ := base64.StdEncoding.DecodeString(envelope(t)["payload"].(string))
			b = []byte(strings.Replace(string(b), "quiet", "debug", 1))
			envelope(t)["payload"] = base64.StdEncoding.EncodeToString(b)
		}), true, ""},
		{"changed signature", edit(func(t map[string]any) {
			b, _ := base64.StdEncoding.DecodeString(first(t)["sig"].(string))
			b[len(b)-1] ^= 1
			first(t)["sig"] = base64.StdEncoding.EncodeToString(b)
		}), true, ""},
		{"no signature", edit(func(t map[string]any) { envelope(t)["signatures"] = []any{} }), true, ""},
		{"two signatures", edit(func(t map[string]any) {
			envelope(t)["signatures"] = append(envelope(t)["signatures"].([]any), first(t))
		}), true, ""},
		{"a certificate instead of a key", edit(func(t map[string]any) {
			t["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": "AAAA"}}
		}), true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Open(tt.bundle, key.Public())
			if err == nil || !strings.Contains(err.Error(), tt.err) || errors.Is(err, ErrSignature) != tt.signature {
				t.Errorf("error %v, want one with %q, of the signature: %v", err, tt.err, tt.signature)
			}
			if diff := cmp.Diff(Release{}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Open(good, nil); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("without a key: %v", err)
	}
}

// A good signature over something that is no release is refused as such.
func TestOpenRefusesSignedNonsense(t *testing.T) {
	key := newKey(t)
	statement, err := sample().Statement()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, from, to, err string }{
		{"predicate type", "kattest/release/v3", "kattest/release/v4", "predicateType"},
		{"an older release", "kattest/release/v3", "kattest/release/v2", "an older format, without a serial"},
		{"another predicate", `"predicate":{`, `"predicateX":{`, "predicateX"},
		{"serial beyond JSON", `"serial":7`, `"serial":9007199254740992`, "serial: 9007199254740992, more than 9007199254740991"},
		{"unknown member", `"lock":`, `"x":1,"lock":`, `unknown member "x"`},
		{"member twice", `"cmdline":`, `"cmdline":"","cmdline":`, "stands twice"},
		{"a subject that is no component", `"subject":[{"digest":{"sha256":"02`, `"subject":[{"digest":{"sha256":"03`, "subject[0]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			payload := strings.Replace(string(statement), tt.from, tt.to, 1)
			if payload == string(statement) {
				t.Fatal("nothing was changed")
			}
			data, err := signBundle([]byte(payload), key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(data, key.Public()); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	if err := sample().Check(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*Release)
		err  string
	}{
		{"no component", func(r *Release) { r.Components = nil }, "components: 0"},
		{"component twice", func(r *Release) { r.Components[1] = r.Components[0] }, "stands twice"},
		{"component elsewhere", func(r *Release) { r.Components[0].Name = "../vmlinuz" }, "not a plain file name"},
		{"negative size", func(r *Release) { r.Components[0].Size = -1 }, "size: -1"},
		{"NUL in the command line", func(r *Release) { r.Cmdline = "a\x00b" }, "cmdline"},
		{"command line that JSON cannot hold", func(r *Release) { r.Cmdline = "\xff" }, "cmdline"},
		{"no lock", func(r *Release) { r.Lock = "" }, "lock"},
		{"contradicting policy", func(r *Release) { r.Policy.Required |= PolicyDebug }, "required and forbidden"},
		{"policy beyond 52 bits", func(r *Release) { r.Policy.Forbidden |= 1 << 60 }, "beyond 52"},
		{"no table", func(r *Release) { r.Table = nil }, "table: 0"},
		{"entry twice", func(r *Release) { r.Table[1] = r.Table[0] }, "table[1]: stands twice"},
		{"no digest", func(r *Release) { r.Table[0].Measurement = measure.Digest{} }, "table[0].measurement: 0000"},
		{"another digest", func(r *Release) { r.Table[2].Measurement[5]++ }, "table[2].measurement"},
		{"another firmware", func(r *Release) { r.Firmware.Digest[5]++ }, "table[0].measurement"},
		{"another kernel", func(r *Release) { r.Components[0].SHA256[5]++ }, "table[0].measurement"},
		{"another command line", func(r *Release) { r.Cmdline += " debug" }, "table[0].measurement"},
		{"no kernel", func(r *Release) { r.Components[0].Name = "kernel" }, "no vmlinuz"},
		{"firmware of another size", func(r *Release) { r.Firmware.Size += 64 << 10 }, "firmware.size: 4259840 bytes, the component OVMF.fd has 4194304"},
		{"no firmware", func(r *Release) { r.Firmware = measure.FirmwareState{} }, "reset vector: zero"},
		{"nothing said of the hashes", func(r *Release) { r.KernelHashes = "" }, "kernelHashes"},
		{"other signature than the model's", func(r *Release) { r.Table[0].CPUSignature++ }, "that of EPYC-v4"},
		{"unknown model", func(r *Release) { r.Table[0].CPU = "EPYC-v99" }, "unknown CPU model"},
		{"no vCPU", func(r *Release) { r.Table[0].VCPUs = 0 }, "vCPUs: 0"},
		{"not SNP", func(r *Release) { r.Table[0].GuestFeatures = 0 }, "SNPActive"},
		{"no VMM", func(r *Release) { r.Table[0].VMM = 0 }, "VMM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := sample()
			tt.edit(&r)
			if err := r.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			if b, err := Sign(r, newKey(t)); err == nil || b != nil {
				t.Error("it was signed")
			}
		})
	}
}

func TestFind(t *testing.T) {
	r := sample()
	if got := r.Find(r.Table[1].Measurement); len(got) != 2 || got[0].CPU != "EPYC-v4" || got[1].CPU != "EPYC-v3" {
		t.Errorf("got %+v", got)
	}
	if got := r.Find(measure.Digest{3}); got != nil {
		t.Errorf("got %+v", got)
	}
}

// A release computes digests that are not in its table, without its files.
func TestMeasureFurther(t *testing.T) {
	r := sample()
	got, err := r.Measure([]measure.Shape{shape(96, "EPYC-Genoa"), shape(2, "EPYC")})
	if err != nil {
		t.Fatal(err)
	}
	if got[1] != r.Table[1].Measurement || got[0] == got[1] {
		t.Errorf("got %v", got)
	}
	if _, err := r.Measure([]measure.Shape{{}}); err == nil {
		t.Error("a shape of nothing was measured")
	}
}

func TestKeys(t *testing.T) {
	password := func() ([]byte, error) { return []byte("secret"), nil }
	private, public, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), cryptoutils.StaticPasswordFunc([]byte("secret")))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(private, password)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(mustSign(t, sample(), key), pub); err != nil {
		t.Error(err)
	}
	wrong := func() ([]byte, error) { return []byte("wrong"), nil }
	if _, err := ParsePrivateKey(private, wrong); err == nil {
		t.Error("a wrong password opened the key")
	}
	for _, bad := range []string{"", "key", string(public)} {
		if k, err := ParsePrivateKey([]byte(bad), password); err == nil || k != nil {
			t.Errorf("%.20q was taken for a private key", bad)
		}
	}
	if k, err := ParsePublicKey(private); err == nil || k != nil {
		t.Error("a private key was taken for a public one")
	}
}

func FuzzParseStatement(f *testing.F) {
	b, err := sample().Statement()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseStatement(data)
		if err != nil {
			if diff := cmp.Diff(Release{}, r); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		again, err := r.Statement()
		if err != nil {
			t.Fatalf("%q was taken and cannot be written: %v", data, err)
		}
		back, err := ParseStatement(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, back); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzOpen(f *testing.F) {
	key := newKey(f)
	good := mustSign(f, sample(), key)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		claim, err := Claims(data)
		if err != nil && claim.Statement != nil {
			t.Fatalf("%+v beside %v", claim, err)
		}
		r, err := Open(data, key.Public())
		if err != nil {
			if diff := cmp.Diff(Release{}, r); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		if diff := cmp.Diff(sample(), r); diff != "" {
			t.Fatalf("a release that was never signed: %s", diff)
		}
	})
}
