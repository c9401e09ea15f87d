package policyfile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/policyfile"
)

func parse(t testing.TB, text string) policyfile.File {
	t.Helper()
	f, err := policyfile.Parse([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The default is strict in all that its text says, and leaves nothing out: what
// it did not say would be the zero value.
func TestDefault(t *testing.T) {
	said, err := policyfile.ParseAlone(policyfile.DefaultText)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(said, policyfile.Default()); diff != "" {
		t.Errorf("-as its text +as the code has it:\n%s", diff)
	}
	if said.Policy.Revocation != verifier.RevocationRequired || said.Policy.WithoutCommitted || len(said.Policy.Products) != 3 {
		t.Errorf("not strict: %+v", said.Policy)
	}
}

// Who reads the default sees every field, with its value or as a comment.
func TestDefaultNamesEveryField(t *testing.T) {
	lines := strings.Split(policyfile.DefaultText, "\n")
	has := func(prefix string) bool {
		return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
	}
	for _, f := range policyfile.Fields() {
		section, name, below := strings.Cut(f.Path, ".")
		prefix := section + ":"
		switch {
		case section == "products" && below:
			name = strings.TrimPrefix(name, "PRODUCT.")
			if name == "reported" || name == "committed" || name == "launch" {
				continue // tcb stands for them
			}
			prefix = "    " + name + ": "
		case below && f.Default == "":
			prefix = "#   " + name + ":"
		case below:
			prefix = "  " + name + ": "
		case f.Default == "" && f.Path != "version":
			prefix = "# " + prefix
		}
		if !has(prefix) {
			t.Errorf("%s: no line begins with %q", f.Path, prefix)
		}
	}
	for i, l := range lines {
		if len(l) > 100 {
			t.Errorf("line %d is of %d bytes", i+1, len(l))
		}
	}
}

// The example values in the default's comments are of the form that they show.
func TestDefaultExamplesParse(t *testing.T) {
	_, examples, ok := strings.Cut(policyfile.DefaultText, "There is no default.\n#\n")
	if !ok {
		t.Fatal("the default has no examples")
	}
	text := "version: 1\n"
	for _, line := range strings.Split(examples, "\n") {
		text += strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ") + "\n"
	}
	f := parse(t, strings.NewReplacer("96 hexadecimal digits", digest, "64 hexadecimal digits", digest[:64]).Replace(text))
	for i, v := 0, reflect.ValueOf(f.Releases); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("no example of %s", v.Type().Field(i).Name)
		}
	}
}

const rich = `version: 1
revocation: if-available
provisional: allow
vmpl: any
chips: ["` + chip + `"]
csp-ids: [amd-vlek-aws, "another \"one\""]
migration-agents: [0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20]
products:
  Genoa:
    tcb: {snp: 30, microcode: 90}
    launch: {snp: 31}
    firmware: 1.58.3
    launch-mitigations: 0x16
    current-mitigations: 22
  Turin: default
guest-policy:
  DEBUG: allow
  MIGRATE_MA: allow
  abi: "1.55"
  SMT: forbidden
  SINGLE_SOCKET: required
platform:
  ALIAS_CHECK_COMPLETE: any
  SMT_EN: forbidden
  TSME_EN: required
id-block:
  id-keys: [` + digest + `]
  author-keys: [` + digest + `]
  family-id: 000102030405060708090a0b0c0d0e0f
  image-id: "00000000000000000000000000000000"
  guest-svn: 7
measurements: [` + digest + `]
host-data: 0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20
releases:
  bundles: [a.json, b.json]
  keys: [gcpkms://k]
  min-serial: 3
  vcpus: 4
  revoked: [0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20]
  revocations: [r.json]
  identity: me
  issuer: them
  identity-pattern: 'm\.e'
  issuer-pattern: "t.*"
  trusted-root: root.json
  log: log.json
`

const (
	digest = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30"
	chip   = digest + "3132333435363738393a3b3c3d3e3f40"
)

func count(n, from byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func TestParse(t *testing.T) {
	id32 := [32]byte(count(32, 1))
	label := [16]byte(count(16, 0))
	want := policyfile.File{
		Policy: verifier.Policy{
			Revocation: verifier.RevocationIfAvailable,
			Products: map[verifier.Product]verifier.ProductPolicy{
				verifier.Genoa: {
					Reported:  verifier.TCB{SNP: 30, Microcode: 90},
					Committed: verifier.TCB{SNP: 30, Microcode: 90},
					Launch:    verifier.TCB{SNP: 31, Microcode: 90},
					Firmware:  verifier.FirmwareVersion{Major: 1, Minor: 58, Build: 3}, LaunchMitigations: 0x16, CurrentMitigations: 0x16,
				},
				verifier.Turin: policyfile.Default().Policy.Products[verifier.Turin],
			},
			Chips: [][64]byte{[64]byte(count(64, 1))}, CSPIDs: []string{"amd-vlek-aws", `another "one"`},
			RequiredPlatform: verifier.PlatformTSME, ForbiddenPlatform: verifier.PlatformSMT,
			References: []verifier.Reference{{Measurement: [48]byte(count(48, 1)), Label: "a digest of the policy file"}},
			HostData:   &id32, RequiredBits: verifier.PolicySingleSocket, ForbiddenBits: verifier.PolicySMT,
			MinimumABI: verifier.ABIVersion{Major: 1, Minor: 55}, MigrationAgents: [][32]byte{id32},
			IDKeys: []idblock.KeyDigest{[48]byte(count(48, 1))}, AuthorKeys: []idblock.KeyDigest{[48]byte(count(48, 1))},
			FamilyID: &label, ImageID: new([16]byte), MinimumGuestSVN: 7,
			WithoutVMPL: true, WithoutDebug: true, WithoutMigration: true, WithoutCommitted: true,
		},
		Releases: policyfile.Releases{
			Bundles: []string{"a.json", "b.json"}, Keys: []string{"gcpkms://k"}, Identity: "me", Issuer: "them",
			TrustedRoot: "root.json", Log: "log.json", MinSerial: 3, Revocations: []string{"r.json"}, Revoked: [][32]byte{id32}, VCPUs: 4,
			IdentityPattern: `m\.e`, IssuerPattern: "t.*",
		},
	}
	got := parse(t, rich)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !got.Releases.Given() || policyfile.Default().Releases.Given() {
		t.Error("Given is wrong")
	}
}

// JSON is read as YAML is, and what is left out is as in the default.
func TestParseJSON(t *testing.T) {
	got := parse(t, "{\n\t\"version\": 1,\n\t\"vmpl\": 2,\n\t\"csp-ids\": [\"a\\u0062\"],\n\t\"products\": {\"Milan\": {\"reported\": {\"snp\": 30}}}\n}\n")
	want := policyfile.Default()
	want.Policy.VMPL = 2
	want.Policy.CSPIDs = []string{"ab"}
	milan := want.Policy.Products[verifier.Milan]
	milan.Reported.SNP = 30
	want.Policy.Products = map[verifier.Product]verifier.ProductPolicy{verifier.Milan: milan}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(policyfile.Default(), parse(t, `{"version":1}`)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestYAML(t *testing.T) {
	for _, f := range []policyfile.File{policyfile.Default(), parse(t, rich), parse(t, policyfile.DefaultText)} {
		text := f.YAML()
		if diff := cmp.Diff(f, parse(t, text)); diff != "" {
			t.Errorf("%s\n-want +got:\n%s", text, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", "empty"},
		{"comments", "# nothing\n", "empty"},
		{"no mapping", "- a", `line 1: want names and values, not a list`},
		{"a scalar", "strict", `want names and values, not "strict"`},
		{"no version", "vmpl: 0", "line 1: no version"},
		{"another version", "version: 2", `line 1: version: want 1, not "2"`},
		{"a version of another kind", "version: [1]", "version: want 1, not a list"},
		{"too long", "version: 1\n#" + strings.Repeat("x", policyfile.MaxSize), "more than 65536"},
		{"no UTF-8", "version: 1\n# \xff", "not UTF-8"},
		{"UTF-16", "\xff\xfev\x00", "not UTF-8"},
		{"no YAML", "version: 1\n\tvmpl: 0", "line 2"},
		{"two documents", "version: 1\n---\nvmpl: any\n", "line 2: a second document"},
		{"rubbish behind", "version: 1\n...\n}", "line"},
		{"unknown", "version: 1\nvmpI: 0", "line 2: vmpI: unknown field"},
		{"unknown below", "version: 1\nplatform:\n  TIO: any", "line 3: platform.TIO: unknown field"},
		{"another case", "version: 1\nplatform:\n  tio_en: any", "platform.tio_en: unknown field"},
		{"a dot for a level", "version: 1\nplatform.TIO_EN: any", "unknown field"},
		{"a section's name at the top", "version: 1\n\"\": 1", "unknown field"},
		{"twice", "version: 1\nvmpl: 0\nvmpl: any", `line 3: "vmpl" stands twice, first in line 2`},
		{"twice in JSON", `{"version": 1, "vmpl": 0, "vmpl": 1}`, `"vmpl" stands twice`},
		{"twice by an escape", `{"version": 1, "vmpl": 0, "vm\u0070l": 1}`, `"vmpl" stands twice`},
		{"twice below", "version: 1\nplatform:\n  TIO_EN: any\n  TIO_EN: required", `line 4: platform: "TIO_EN" stands twice`},
		{"an anchor", "version: &v 1", "line 1: version: anchors"},
		{"an alias", "version: 1\ncsp-ids: &a [x]\nchips: *a", "line 2: csp-ids: anchors"},
		{"a merge", "version: 1\n<<: {vmpl: any}", "<<: unknown field"},
		{"a tag", "version: 1\nvmpl: !!int 0", "line 2: vmpl: tags"},
		{"a tag on a name", "version: 1\n!x vmpl: 0", "tags"},
		{"a name that is a list", "version: 1\n[a]: 0", "a name must be a plain text"},
		{"deep", "version: 1\nchips: " + strings.Repeat("[", 9) + strings.Repeat("]", 9), "nested deeper than 8"},
		{"very deep", "version: 1\nchips: " + strings.Repeat("[", 20000) + strings.Repeat("]", 20000), "line"},
		{"an empty section", "version: 1\nplatform: {}", "platform: empty"},
		{"a section without a value", "version: 1\nplatform:\n", "platform: want names and values"},
		{"no product", "version: 1\nproducts: {}", "products: empty"},
		{"a product without minima", "version: 1\nproducts:\n  Milan: {}", "products.Milan: empty"},
		{"a product without a value", "version: 1\nproducts:\n  Milan:", "products.Milan: want names"},
		{"a list of products", "version: 1\nproducts: [Milan]", "products: want names and values"},
		{"a list for a product", "version: 1\nproducts: {Milan: [tcb, {snp: 1}]}", "products.Milan: want names and values"},
		{"an unknown product", "version: 1\nproducts:\n  Rome:\n    firmware: any", "line 4: products.Rome: unknown product"},
		{"a stepping", "version: 1\nproducts:\n  Milan-B0:\n    firmware: any", "products.Milan-B0: unknown product"},
		{"an unknown field of a product", "version: 1\nproducts:\n  Milan:\n    tbc: {snp: 1}", "products.Milan.tbc: unknown field"},
		{"no levels", "version: 1\nproducts:\n  Milan:\n    tcb: {}", "products.Milan.tcb: empty"},
		{"an unknown level", "version: 1\nproducts:\n  Milan:\n    tcb: {ucode: 1}", "products.Milan.tcb.ucode: unknown"},
		{"a level of Turin's", "version: 1\nproducts:\n  Milan:\n    tcb: {fmc: 1}", "products.Milan.tcb.fmc: Milan has no such level"},
		{"a level too high", "version: 1\nproducts:\n  Milan:\n    tcb: {snp: 256}", `products.Milan.tcb.snp: want a number from 0 to 255, not "256"`},
		{"a negative level", "version: 1\nproducts:\n  Milan:\n    tcb: {snp: -1}", `not "-1"`},
		{"a level in octal", "version: 1\nproducts:\n  Milan:\n    tcb: {snp: 033}", `not "033"`},
		{"a level with a fraction", "version: 1\nproducts:\n  Milan:\n    tcb: {snp: 2.7e1}", `not "2.7e1"`},
		{"a firmware without a build", "version: 1\nproducts:\n  Milan:\n    firmware: 1.55", `want N.N.N, not "1.55"`},
		{"a firmware too high", "version: 1\nproducts:\n  Milan:\n    firmware: 1.256.1", `each from 0 to 255`},
		{"a firmware with a zero before", "version: 1\nproducts:\n  Milan:\n    firmware: 1.055.1", `each from 0 to 255`},
		{"mitigations too wide", "version: 1\nproducts:\n  Milan:\n    launch-mitigations: 0x10000000000000000", "launch-mitigations: want a number"},
		{"revocation", "version: 1\nrevocation: never", `revocation: "never" is not required, if-available or off`},
		{"provisional", "version: 1\nprovisional: any", `provisional: want refuse or allow, not "any"`},
		{"vmpl", "version: 1\nvmpl: 4", `vmpl: want a number from 0 to 3, not "4"`},
		{"no vmpl", "version: 1\nvmpl:", "vmpl: empty"},
		{"null", "version: 1\nvmpl: ~", "vmpl: empty"},
		{"an empty text", "version: 1\nvmpl: \"\"", "vmpl: empty"},
		{"a list of levels", "version: 1\nvmpl: [0]", "vmpl: want a number from 0 to 3, not a list"},
		{"no chips", "version: 1\nchips: []", "chips: an empty list"},
		{"null chips", "version: 1\nchips:", "chips: want any or a list of CHIP_IDs"},
		{"a short chip", "version: 1\nchips: [abcd]", `line 2: chips[0]: want 128 hexadecimal digits, not "abcd"`},
		{"a masked chip", "version: 1\nchips: [\"" + strings.Repeat("0", 128) + "\"]", "chips[0]: zero is a masked"},
		{"a chip twice", "version: 1\nchips: [" + chip + ", " + chip + "]", "chips[1]: "},
		{"no providers", "version: 1\ncsp-ids: []", "csp-ids: an empty list"},
		{"an empty provider", "version: 1\ncsp-ids: [\"\"]", "csp-ids[0]: empty"},
		{"a provider's name alone", "version: 1\ncsp-ids: amd-vlek-aws", `csp-ids: want none, any or a list of names, not "amd-vlek-aws"`},
		{"an agent", "version: 1\nmigration-agents: any", "migration-agents: want none or a list"},
		{"DEBUG", "version: 1\nguest-policy: {DEBUG: any}", `guest-policy.DEBUG: want forbidden or allow, not "any"`},
		{"MIGRATE_MA", "version: 1\nguest-policy: {MIGRATE_MA: required}", "want forbidden or allow"},
		{"RESERVED_1", "version: 1\nguest-policy: {RESERVED_1: any}", "unknown field"},
		{"a bit", "version: 1\nguest-policy: {SMT: yes}", `guest-policy.SMT: want required, forbidden or any, not "yes"`},
		{"an ABI", "version: 1\nguest-policy: {abi: 1}", `guest-policy.abi: want N.N, not "1"`},
		{"a platform bit", "version: 1\nplatform: {TIO_EN: 1}", "platform.TIO_EN: want required"},
		{"no keys", "version: 1\nid-block: {id-keys: []}", "id-block.id-keys: an empty list"},
		{"a zero key", "version: 1\nid-block: {id-keys: [\"" + strings.Repeat("0", 96) + "\"]}", "zero is no key's digest"},
		{"a key's file without a folder", "version: 1\nid-block: {id-keys: [id.pub]}", `want a digest of 96 hexadecimal digits, not "id.pub"`},
		{"a label without a key", "version: 1\nid-block: {guest-svn: 1}", "id-block: any host can sign an ID block"},
		{"a short label", "version: 1\nid-block: {family-id: 00, id-keys: [" + digest + "]}", "id-block.family-id: want 32 hexadecimal digits"},
		{"a GUEST_SVN too high", "version: 1\nid-block: {guest-svn: 4294967296}", "want a number from 0 to 4294967295"},
		{"no measurements", "version: 1\nmeasurements: []", "measurements: an empty list"},
		{"any measurement", "version: 1\nmeasurements: any", "measurements: want a list"},
		{"a short measurement", "version: 1\nmeasurements: [\"00\"]", "want 96 hexadecimal digits"},
		{"HOST_DATA", "version: 1\nhost-data: any", "host-data: want 64 hexadecimal digits"},
		{"no release", "version: 1\nreleases: {bundles: []}", "releases.bundles: an empty list"},
		{"a serial of zero", "version: 1\nreleases: {min-serial: 0}", "releases.min-serial: want 1 to"},
		{"too many vCPUs", "version: 1\nreleases: {vcpus: 100000}", "releases.vcpus: want a number"},
		{"an empty identity", "version: 1\nreleases: {identity: \"\"}", "releases.identity: empty"},
		{"all at once", "version: 1\nvmpl: 9\nchips: 1\nx: 2", "vmpl: want a number from 0 to 3, not \"9\"\nline 3: chips: want"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := policyfile.Parse([]byte(test.text), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if diff := cmp.Diff(policyfile.File{}, got); diff != "" {
				t.Errorf("with an error, not zero: %s", diff)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	pemOf := func(curve elliptic.Curve) ([]byte, *ecdsa.PublicKey) {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), &key.PublicKey
	}
	good, key := pemOf(elliptic.P384())
	other, _ := pemOf(elliptic.P256())
	files := map[string][]byte{"good.pub": good, "p256.pub": other, "text": []byte("x"), "two.pub": append(slices.Clone(good), good...)}
	read := func(name string) ([]byte, error) {
		if data, ok := files[name]; ok {
			return data, nil
		}
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	public, err := idblock.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f, err := policyfile.Parse([]byte("version: 1\nid-block: {author-keys: [good.pub]}"), read)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]idblock.KeyDigest{public.Digest()}, f.Policy.AuthorKeys); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for name, want := range map[string]string{
		"p256.pub": "p256.pub: ", "text": "text: want one PEM block", "two.pub": "two.pub: want one PEM block", "none": "file does not exist",
	} {
		if _, err := policyfile.Parse([]byte("version: 1\nid-block: {id-keys: ["+name+"]}"), read); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// What is accepted is written back to the same policy, and demands at least what
// the zero policy would: nothing is let pass that the text does not name.
func FuzzParse(f *testing.F) {
	for _, text := range []string{policyfile.DefaultText, rich, `{"version":1,"products":{"Turin":{"tcb":{"fmc":1}}}}`, "version: 1\nvmpl: any"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := policyfile.Parse(data, nil)
		if err != nil {
			if diff := cmp.Diff(policyfile.File{}, file); diff != "" {
				t.Fatalf("with an error, not zero: %s", diff)
			}
			return
		}
		again, err := policyfile.Parse([]byte(file.YAML()), nil)
		if err != nil {
			t.Fatalf("%v of\n%s", err, file.YAML())
		}
		if diff := cmp.Diff(file, again); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		for word, without := range map[string]bool{
			"any":   file.Policy.WithoutVMPL || file.Policy.WithoutCSPID,
			"allow": file.Policy.WithoutDebug || file.Policy.WithoutMigration || file.Policy.WithoutCommitted,
		} {
			if without && !strings.ContainsAny(string(data), `\`) && !strings.Contains(string(data), word) {
				t.Fatalf("something is left out, and %q does not stand there", word)
			}
		}
		if p := file.Policy; p.WithoutMeasurement || p.WithoutHostData || p.WithoutNonce || p.AuthenticityOnly || len(p.Products) == 0 {
			t.Fatal("a file leaves out what only a command line can")
		}
	})
}

func TestDifferences(t *testing.T) {
	d := policyfile.Default()
	if got := parse(t, policyfile.DefaultText).Differences(d); len(got) != 0 {
		t.Errorf("the default differs from itself: %v", got)
	}
	got := parse(t, "version: 1\nvmpl: any\nproducts:\n  Milan: {committed: {snp: 24}}\n  Turin: default").Differences(d)
	want := []policyfile.Difference{
		{
			Field: "products.Milan.committed",
			Here:  "{bootloader: 0, tee: 0, snp: 24, microcode: 68}", There: "{bootloader: 0, tee: 0, snp: 29, microcode: 68}",
		},
		{Field: "products.Genoa", Here: "refused", There: "accepted"},
		{Field: "vmpl", Here: "any", There: "0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
