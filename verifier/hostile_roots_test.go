package verifier_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/verifier"
)

// pinnedChain is what is compiled in: the ASK (for a VLEK the ASVK) and the ARK.
func pinnedChain(t *testing.T, p verifier.Product, key verifier.SigningKey) [2]*x509.Certificate {
	t.Helper()
	ask, ark, err := verifier.Pinned(p, key)
	if err != nil {
		t.Fatal(err)
	}
	return [2]*x509.Certificate{ask, ark}
}

// The roots that are compiled in are what they say: each ARK signed itself, and
// its ASK and ASVK; they are AMD's by the names, and what AMD publishes.
func TestRoots(t *testing.T) {
	arks := map[verifier.Product]*x509.Certificate{}
	for _, p := range verifier.Products() {
		for _, key := range []verifier.SigningKey{verifier.VCEK, verifier.VLEK} {
			t.Run(p.String()+"/"+key.String(), func(t *testing.T) {
				chain := pinnedChain(t, p, key)
				ask, ark := chain[0], chain[1]
				for _, link := range [][2]*x509.Certificate{{ask, ark}, {ark, ark}} {
					if err := link[0].CheckSignatureFrom(link[1]); err != nil {
						t.Errorf("%s under %s: %v", link[0].Subject.CommonName, link[1].Subject.CommonName, err)
					}
				}
				want := map[verifier.SigningKey]string{verifier.VCEK: "SEV-", verifier.VLEK: "SEV-VLEK-"}[key] + p.String()
				if ask.Subject.CommonName != want || ark.Subject.CommonName != "ARK-"+p.String() {
					t.Errorf("names %q, %q", ask.Subject.CommonName, ark.Subject.CommonName)
				}
				for _, c := range chain {
					if key, ok := c.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 4096 || c.SignatureAlgorithm != x509.SHA384WithRSAPSS || !c.IsCA {
						t.Errorf("%s: not an authority of RSA 4096, signed with %v", c.Subject.CommonName, c.SignatureAlgorithm)
					}
				}
				if !ask.MaxPathLenZero {
					t.Errorf("%s: may have authorities below it", ask.Subject.CommonName)
				}
				if known := arks[p]; known != nil && !known.Equal(ark) {
					t.Error("VCEK and VLEK have different ARKs")
				}
				arks[p] = ark
				name := filepath.Join(corpus, "amd", "chain_"+strings.ToLower(p.String()+"_"+key.String())+".pem")
				data, err := os.ReadFile(name)
				if err != nil {
					t.Skipf("what AMD publishes is missing: %v", err)
				}
				published, err := verifier.ParseChain(data)
				if err != nil {
					t.Fatal(err)
				}
				if len(published) != 2 || !bytes.Equal(published[0].Raw, ask.Raw) || !bytes.Equal(published[1].Raw, ark.Raw) {
					t.Error("not what AMD publishes")
				}
			})
		}
	}
}
