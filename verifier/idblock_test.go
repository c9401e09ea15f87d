package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
)

func idKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyDigest(t *testing.T, key crypto.PublicKey) idblock.KeyDigest {
	t.Helper()
	k, err := idblock.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return k.Digest()
}

// Guests with and without an ID block on the simulated platform, and what their
// owner demands of it.
func TestIDBlock(t *testing.T) {
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := verifier.ParseSimulatedChain(psp.Chain())
	if err != nil {
		t.Fatal(err)
	}
	vcek, err := x509.ParseCertificate(psp.VCEK())
	if err != nil {
		t.Fatal(err)
	}
	measurement := measure.Digest{2}
	id, author, host := idKey(t), idKey(t), idKey(t)
	block := idblock.Block{Measurement: measurement, FamilyID: [16]byte{1}, ImageID: [16]byte{2}, GuestSVN: 7, Policy: 0x30000}
	report := func(id, author crypto.Signer) [port.ReportSize]byte {
		auth, err := idblock.Sign(block, id, author)
		if err != nil {
			t.Fatal(err)
		}
		g, err := psp.LaunchID(measurement, [32]byte{}, 0x30000, idblock.Signed{Block: block, Auth: auth})
		if err != nil {
			t.Fatal(err)
		}
		return g.Report([64]byte{}, 0)
	}
	none := psp.Launch(measurement, [32]byte{}, 0x30000).Report([64]byte{}, 0)
	both, alone, hosts := report(id, author), report(id, nil), report(host, host)

	idDigest, authorDigest := keyDigest(t, id.Public()), keyDigest(t, author.Public())
	byID := func(p *verifier.Policy) { p.IDKeys = []idblock.KeyDigest{idDigest} }
	byAuthor := func(p *verifier.Policy) { p.AuthorKeys = []idblock.KeyDigest{authorDigest} }
	labels := func(p *verifier.Policy) {
		p.FamilyID, p.ImageID, p.MinimumGuestSVN = &[16]byte{1}, &[16]byte{2}, 7
	}
	all := func(changes ...func(*verifier.Policy)) func(*verifier.Policy) {
		return func(p *verifier.Policy) {
			for _, change := range changes {
				change(p)
			}
		}
	}
	allLabels := []verifier.Code{"id-block.family-id", "id-block.image-id", "id-block.guest-svn"}
	for _, tt := range []struct {
		name   string
		report [port.ReportSize]byte
		demand func(*verifier.Policy)
		passes []verifier.Code
		fails  []verifier.Code
		reason string
	}{
		{"nothing is demanded", none, all(), nil, nil, ""},
		{"an ID block that no one asked for", hosts, all(), nil, nil, ""},
		{"ID key", alone, byID, []verifier.Code{"id-block.id-key"}, nil, ""},
		{"both keys and the labels", both, all(byID, byAuthor, labels), append([]verifier.Code{"id-block.id-key", "id-block.author-key"}, allLabels...), nil, ""},
		{"author and labels", both, all(byAuthor, labels), append([]verifier.Code{"id-block.author-key"}, allLabels...), nil, ""},
		{"one of several", both, func(p *verifier.Policy) {
			p.IDKeys = []idblock.KeyDigest{authorDigest, idDigest}
		}, []verifier.Code{"id-block.id-key"}, nil, ""},
		{"no ID block", none, all(byID, byAuthor), nil, []verifier.Code{"id-block.id-key", "id-block.author-key"}, "launched without an ID block"},
		{"the host's own", hosts, all(byID, labels), allLabels, []verifier.Code{"id-block.id-key"}, "another key signed the guest's ID block"},
		{"the host's own author", hosts, byAuthor, nil, []verifier.Code{"id-block.author-key"}, "another author's key"},
		{"the keys change places", both, func(p *verifier.Policy) {
			p.IDKeys, p.AuthorKeys = []idblock.KeyDigest{authorDigest}, []idblock.KeyDigest{idDigest}
		}, nil, []verifier.Code{"id-block.id-key", "id-block.author-key"}, "another key"},
		{"no author", alone, byAuthor, nil, []verifier.Code{"id-block.author-key"}, "no author's key signed"},
		{"labels that anyone can write", both, labels, nil, allLabels, "any host can sign an ID block"},
		{"labels without an ID block", none, all(byID, labels), nil, append([]verifier.Code{"id-block.id-key"}, allLabels...), "without an ID block"},
		{"another family", both, all(byID, func(p *verifier.Policy) { p.FamilyID = &[16]byte{9} }), []verifier.Code{"id-block.id-key"}, []verifier.Code{"id-block.family-id"}, "another family"},
		{"another image", both, all(byID, func(p *verifier.Policy) { p.ImageID = &[16]byte{} }), []verifier.Code{"id-block.id-key"}, []verifier.Code{"id-block.image-id"}, "another image"},
		{"an older version", both, all(byID, func(p *verifier.Policy) { p.MinimumGuestSVN = 8 }), []verifier.Code{"id-block.id-key"}, []verifier.Code{"id-block.guest-svn"}, "an older version"},
		{"zero is trusted", none, func(p *verifier.Policy) {
			p.IDKeys, p.AuthorKeys = []idblock.KeyDigest{{}}, []idblock.KeyDigest{{}}
		}, nil, []verifier.Code{"id-block.id-key", "id-block.author-key"}, "without an ID block"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := verifier.Policy{
				Time: time.Now(), Simulated: chain, Products: anyProduct(), VCEK: vcek, ReportData: new([64]byte), HostData: new([32]byte),
				References: []verifier.Reference{{Measurement: measurement}},
			}
			tt.demand(&p)
			r := verify(t, parse(t, tt.report[:]), p)
			if want := len(tt.fails) == 0; (r.Verdict == verifier.Verified) != want || !want && r.Verdict != verifier.Mismatch {
				t.Errorf("verdict %v", r.Verdict)
			}
			if diff := cmp.Diff(tt.fails, failures(r)); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			var passes []verifier.Code
			for _, c := range r.With(verifier.Pass) {
				if strings.HasPrefix(string(c.Code), "id-block.") {
					passes = append(passes, c.Code)
				}
			}
			if diff := cmp.Diff(tt.passes, passes); diff != "" {
				t.Errorf("passes (-want +got):\n%s", diff)
			}
			if tt.reason != "" && !strings.Contains(r.With(verifier.Fail)[0].Reason, tt.reason) {
				t.Errorf("reason %q, want %q", r.With(verifier.Fail)[0].Reason, tt.reason)
			}
		})
	}
}

// Bytes of a report that are changed, under a signature that holds: what only a
// processor that lies could do, and what the host may try, which breaks it.
func TestForgedIDBlock(t *testing.T) {
	psp, genuine, mine, chain := newForger(t)
	key := idKey(t)
	vcek := mine.vcek(t, "SIMULATED-SEV-VCEK", key, genuine, func(_ string, value []byte) []byte { return value })
	trusted := idblock.KeyDigest(bytes.Repeat([]byte{0x11}, 48))
	none := psp.Launch(measure.Digest{}, [32]byte{}, 0x30000).Report([64]byte{}, 0)
	for _, tt := range []struct {
		name   string
		change func(report []byte)
		fails  []verifier.Code
		found  string
	}{
		{"both keys", func(b []byte) { copy(b[0xe0:], trusted[:]); copy(b[0x110:], trusted[:]); b[0x48] = 1 }, nil, ""},
		{"AUTHOR_KEY_EN is clear", func(b []byte) { copy(b[0xe0:], trusted[:]); copy(b[0x110:], trusted[:]) }, []verifier.Code{"id-block.author-key"}, "none"},
		{"AUTHOR_KEY_EN without a key", func(b []byte) { copy(b[0xe0:], trusted[:]); b[0x48] = 1 }, []verifier.Code{"id-block.author-key"}, "none"},
		{"one bit of the ID key", func(b []byte) {
			copy(b[0xe0:], trusted[:])
			copy(b[0x110:], trusted[:])
			b[0x48], b[0x10f] = 1, 0x10
		}, []verifier.Code{"id-block.id-key"}, hex.EncodeToString(trusted[:47]) + "10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			report := none
			tt.change(report[:])
			p := verifier.Policy{
				Time: time.Now(), Simulated: chain, Products: anyProduct(), VCEK: vcek, ReportData: new([64]byte), HostData: new([32]byte), WithoutMeasurement: true,
				IDKeys: []idblock.KeyDigest{trusted}, AuthorKeys: []idblock.KeyDigest{trusted},
			}
			r := verify(t, parse(t, resign(t, report, key)), p)
			if diff := cmp.Diff(tt.fails, failures(r)); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			if tt.found != "" && r.With(verifier.Fail)[0].Found != tt.found {
				t.Errorf("found %q, want %q", r.With(verifier.Fail)[0].Found, tt.found)
			}
			// Without the processor's key the change breaks the signature.
			p.VCEK = genuine
			var err error
			if p.Simulated, err = verifier.ParseSimulatedChain(psp.Chain()); err != nil {
				t.Fatal(err)
			}
			if r := verify(t, parse(t, report[:]), p); r.Verdict != verifier.Forged {
				t.Errorf("unsigned: verdict %v", r.Verdict)
			}
		})
	}
}

// Genuine reports of guests that were launched with an ID block: Azure's, with
// an ID key alone, and one with an author's key.
func TestGenuineIDBlocks(t *testing.T) {
	const azure = "0356215882a825279a85b300b0b742931d113bf7e32dde2e50ffde7ec743ca491ecdd7f336dc28a6e0b2bb57af7a44a3"
	digest := func(s string) idblock.KeyDigest {
		d, err := idblock.ParseKeyDigest(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	demands := map[string]func(*verifier.Policy){
		"1e4e3afc182e": func(p *verifier.Policy) {
			p.IDKeys = []idblock.KeyDigest{digest(azure)}
			p.FamilyID, p.ImageID, p.MinimumGuestSVN = &[16]byte{1}, &[16]byte{2}, 5
		},
		"9e30d240aa7e": func(p *verifier.Policy) {
			p.IDKeys = []idblock.KeyDigest{digest("20decd2b76b6934f81b7fa57ef0176dda60368991336dde1d09086589c2a4451a19995e9c24432a1a38b4f668de3195f")}
			p.AuthorKeys = []idblock.KeyDigest{digest("978c906877f075c682296932dad850555700dfbc18006c7205d96373c78e2f3e8bf419eed09b0083ee1a62a5741eab06")}
		},
	}
	for _, g := range readCorpus(t) {
		name, _, _ := strings.Cut(filepath.Base(g.row["file"]), ".")
		demand := demands[name]
		if demand == nil {
			continue
		}
		delete(demands, name)
		t.Run(name, func(t *testing.T) {
			check := func(p verifier.Policy) (fails []verifier.Code) {
				p.AuthenticityOnly = false
				for _, c := range verify(t, parse(t, g.report), p).With(verifier.Fail) {
					if strings.HasPrefix(string(c.Code), "id-block.") {
						fails = append(fails, c.Code)
					}
				}
				return fails
			}
			p := g.policy(t)
			demand(&p)
			if fails := check(p); fails != nil {
				t.Errorf("failures %v", fails)
			}
			p.IDKeys[0][0] ^= 1
			p.MinimumGuestSVN = 6
			if diff := cmp.Diff([]verifier.Code{"id-block.id-key", "id-block.guest-svn"}, check(p)); diff != "" {
				t.Errorf("failures of the twin (-want +got):\n%s", diff)
			}
		})
	}
	for name := range demands {
		t.Errorf("%s is not in the corpus", name)
	}
}
