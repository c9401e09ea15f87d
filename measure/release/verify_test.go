package release

import (
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
)

// Of several keys the one that signed is named; without it nothing is returned.
func TestVerifyByOneOfSeveralKeys(t *testing.T) {
	a, b, c := newKey(t), newKey(t), newKey(t)
	bundle := mustSign(t, sample(), b)
	payload, by, err := Verify(bundle, a.Public(), b.Public())
	if err != nil || by != 1 {
		t.Fatalf("key %d, %v", by, err)
	}
	r, err := ParseStatement(payload)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), r); diff != "" {
		t.Error(diff)
	}
	for name, keys := range map[string][]crypto.PublicKey{"others": {a.Public(), c.Public()}, "none": nil, "nil first": {nil, b.Public()}} {
		payload, by, err := Verify(bundle, keys...)
		if err == nil || payload != nil || by != 0 || errors.Is(err, ErrSignature) != (name == "others") {
			t.Errorf("%s: %q, %d, %v", name, payload, by, err)
		}
	}
}

// liar shows another key than it signs with, as a broken KMS may.
type liar struct {
	crypto.Signer
	shown crypto.PublicKey
}

func (l liar) Public() crypto.PublicKey { return l.shown }

// silent returns no signature and no error.
type silent struct{ crypto.Signer }

func (silent) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }

func TestSignChecksItsSignature(t *testing.T) {
	key := newKey(t)
	for name, bad := range map[string]crypto.Signer{"liar": liar{key, newKey(t).Public()}, "silent": silent{key}} {
		if b, err := Sign(sample(), bad); !errors.Is(err, ErrSignature) || b != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHasCertificate(t *testing.T) {
	good := mustSign(t, sample(), newKey(t))
	if got, err := HasCertificate(good); got || err != nil {
		t.Errorf("a key's: %v, %v", got, err)
	}
	certified := change(t, good, func(tree map[string]any) {
		tree["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": "AAAA"}}
	})
	if got, err := HasCertificate(certified); !got || err != nil {
		t.Errorf("a certificate's: %v, %v", got, err)
	}
	if got, err := HasCertificate([]byte("{}")); got || err == nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

func revocation() Revocation {
	return Revocation{Until: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC), BelowSerial: 7, Releases: []measure.Hash{{1}, {2}}}
}

func TestRevocation(t *testing.T) {
	key := newKey(t)
	local := revocation()
	local.Until = local.Until.In(time.FixedZone("", 3600))
	b, err := SignRevocation(local, key)
	if err != nil {
		t.Fatal(err)
	}
	statement, _, err := Verify(b, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRevocation(statement)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(revocation(), got); diff != "" {
		t.Error(diff)
	}
	// Neither is taken for the other.
	if r, err := ParseStatement(statement); err == nil || !strings.Contains(err.Error(), "predicateType") || r.Table != nil {
		t.Errorf("as a release: %v", err)
	}
	release, err := sample().Statement()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseRevocation(release); err == nil || !strings.Contains(err.Error(), "predicateType") {
		t.Errorf("a release as a revocation: %v", err)
	}
}

func TestRevokes(t *testing.T) {
	r := sample() // serial 7
	statement, err := r.Statement()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		by      Revocation
		revoked string
	}{
		{"nothing", Revocation{}, ""},
		{"the serial before", Revocation{BelowSerial: 7}, ""},
		{"the serial", Revocation{BelowSerial: 8}, "serial 7 is below 8"},
		{"another release", Revocation{Releases: []measure.Hash{{1}}}, ""},
		{"this release", Revocation{Releases: []measure.Hash{{1}, sha256.Sum256(statement)}}, "is on the list"},
	} {
		got := tt.by.Revokes(r, statement)
		if (got == "") != (tt.revoked == "") || !strings.Contains(got, tt.revoked) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.revoked)
		}
	}
}

func TestRevocationCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Revocation)
		err  string
	}{
		{"for ever", func(v *Revocation) { v.Until = time.Time{} }, "until"},
		{"to the nanosecond", func(v *Revocation) { v.Until = v.Until.Add(1) }, "until"},
		{"after year 9999", func(v *Revocation) { v.Until = v.Until.AddDate(8000, 0, 0) }, "until"},
		{"of nothing", func(v *Revocation) { v.BelowSerial, v.Releases = 0, nil }, "nothing is revoked"},
		{"serial beyond JSON", func(v *Revocation) { v.BelowSerial = MaxSerial + 1 }, "belowSerial"},
		{"too many", func(v *Revocation) { v.Releases = make([]measure.Hash, maxRevoked+1) }, "releases: 8193"},
	} {
		v := revocation()
		tt.edit(&v)
		if b, err := SignRevocation(v, newKey(t)); err == nil || b != nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.err)
		}
	}
	statement, err := revocation().Statement()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"another subject":  {`"name":"revocation.json"`, `"name":"x"`},
		"another digest":   {`"belowSerial":7`, `"belowSerial":8`},
		"unknown member":   {`"belowSerial":7`, `"belowSerial":7,"more":1`},
		"no canonical day": {`"2030-01-31T12:00:00Z"`, `"2030-02-31T12:00:00Z"`},
	} {
		text := strings.Replace(string(statement), change[0], change[1], 1)
		if text == string(statement) {
			t.Fatalf("%s: nothing was changed in %s", name, statement)
		}
		if v, err := ParseRevocation([]byte(text)); err == nil || !cmp.Equal(v, Revocation{}) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func FuzzParseRevocation(f *testing.F) {
	b, err := revocation().Statement()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseRevocation(data)
		if err != nil {
			if diff := cmp.Diff(Revocation{}, v); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		again, err := v.Statement()
		if err != nil {
			t.Fatalf("%q was taken and cannot be written: %v", data, err)
		}
		back, err := ParseRevocation(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v, back); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestIdentity(t *testing.T) {
	for _, tt := range []struct {
		name string
		id   Identity
		err  string
	}{
		{"exact", Identity{Subject: "a", Issuer: "b"}, ""},
		{"patterns", Identity{SubjectPattern: "a.+", IssuerPattern: "b"}, ""},
		{"nothing", Identity{}, "identity: want it or a pattern"},
		{"no issuer", Identity{Subject: "a"}, "issuer: want it or a pattern"},
		{"a wildcard without an issuer", Identity{SubjectPattern: ".+"}, "issuer: want it or a pattern"},
		{"no identity", Identity{IssuerPattern: "b"}, "identity: want it or a pattern"},
		{"twice", Identity{Subject: "a", Issuer: "b", IssuerPattern: "b"}, "not both"},
		{"a pattern of nothing", Identity{SubjectPattern: ".*", Issuer: "b"}, "demands nothing"},
		{"an optional pattern", Identity{Subject: "a", IssuerPattern: "(b|)"}, "demands nothing"},
		{"no pattern", Identity{SubjectPattern: "(", Issuer: "b"}, "missing closing )"},
		{"out of its anchors", Identity{SubjectPattern: "a)|(?:b", Issuer: "b"}, "unexpected )"},
	} {
		err := tt.id.Check()
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

func TestAnchor(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		matches       bool
	}{
		{`a\.b`, "a.b", true},
		{`a\.b`, "axb", false},
		{`a.b`, "axb", true}, // the user's own dot
		{`a`, "ab", false},
		{`b`, "ab", false},
		{`a|b`, "ab", false},
		{`a|b`, "b", true},
		{`^a$`, "a", true},
		{`(?m)^a$`, "b\na", false},
		{`a`, "a\n", false},
		{`(?i)a`, "A", true},
	} {
		re, err := Anchor(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := re.MatchString(tt.text); got != tt.matches {
			t.Errorf("%q matches %q: %v, want %v", tt.pattern, tt.text, got, tt.matches)
		}
	}
}

// The wire forms of who signed do not change.
func TestKeylessJSON(t *testing.T) {
	b, err := json.Marshal(Keyless{KeylessMediaType, Signer{"a", "b", time.Unix(0, 0).UTC()}, []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"mediaType":"application/vnd.kattest.keyless.v1+json","signer":{"subject":"a","issuer":"b","time":"1970-01-01T00:00:00Z"},"statement":"eA=="}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
}
