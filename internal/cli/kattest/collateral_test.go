package kattest_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/verifier/collateral"
	"github.com/kraudcloud/kattest/verifier/collateral/fakekds"
)

// Scripts find a service at $KDS that has genuine certificates and lists, and
// reports that they are for: milan.bin (version 3), old.bin (version 2), turin.bin,
// and vlek.bin with vlek.der. milan.crl and stale.crl are AMD's lists.
//
//	kds FAULT [FAULT...]  the service's next answers: busy, down
//	asked N               how often it was asked since the script began
func TestCollateralScripts(t *testing.T) {
	const corpus = "../../../../shared/corpus/"
	if _, err := os.Stat(corpus + "index.tsv"); err != nil {
		t.Skipf("genuine reports and certificates are kept outside of the repository: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/collateral",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			fake, err := fakeKDS(corpus)
			if err != nil {
				return err
			}
			server := httptest.NewServer(fake)
			env.Defer(server.Close)
			env.Values["kds"] = fake
			env.Setenv("KDS", server.URL)
			for name, from := range map[string]string{
				"milan.bin": "reports/43bf5354371e.bin", "old.bin": "reports/a95b044f63fb.bin", "turin.bin": "reports/3f44a09b769a.bin",
				"vlek.bin": "reports/0216f1cec33b.bin", "vlek.der": "reports/0216f1cec33b.vlek.der",
				"milan.crl": "amd/crl_53a61dc059e5.crl", "stale.crl": "amd/crl_04ca93fda066.crl", "vcek.der": "reports/43bf5354371e.vcek.der",
			} {
				data, err := os.ReadFile(corpus + from)
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip,
			"kds": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, name := range args {
					fault, ok := map[string]fakekds.Fault{"busy": fakekds.TooMany, "down": fakekds.Unavailable, "garbage": fakekds.Garbage}[name]
					if !ok {
						ts.Fatalf("unknown fault %q", name)
					}
					ts.Value("kds").(*fakekds.Server).Fail(fault)
				}
			},
			"asked": func(ts *testscript.TestScript, _ bool, args []string) {
				requests := ts.Value("kds").(*fakekds.Server).Requests()
				if got := len(requests); len(args) != 1 || args[0] != strconv.Itoa(got) {
					ts.Fatalf("asked %d times, want %v:\n%s", got, args, strings.Join(requests, "\n"))
				}
			},
		},
	})
}

func fakeKDS(corpus string) (*fakekds.Server, error) {
	var b collateral.Bundle
	for pattern, add := range map[string]func([]byte) error{
		"reports/*.vcek.der": b.AddVCEK, "amd/*.crl": b.AddCRL, "amd/chain_*.pem": b.AddChain,
	} {
		names, err := filepath.Glob(corpus + pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			if err := add(data); err != nil {
				return nil, err
			}
		}
	}
	return fakekds.New(&b), nil
}
