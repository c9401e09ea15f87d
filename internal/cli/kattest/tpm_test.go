package kattest_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/internal/swtpm"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// Scripts find what those of verify do, and a software TPM for tpm2-tools. What
// paravisor and SVSM do with the guest's report, two commands do:
//
//	hcl FILE AK                     the HCL report that binds the AK (PEM)
//	svsm NONCE EK REPORT MANIFEST   the service attestation that binds the EK (TPM2B_PUBLIC)
func TestTPMScripts(t *testing.T) {
	if _, err := exec.LookPath("tpm2_quote"); err != nil {
		t.Skip("tpm2-tools are not installed (scripts/setup installs them)")
	}
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	guest := func(ts *testscript.TestScript) *simpsp.Guest {
		digest, err := measure.ParseDigest(ts.Getenv("MEASUREMENT"))
		ts.Check(err)
		hostData, err := measure.ParseHash(ts.Getenv("HOST_DATA"))
		ts.Check(err)
		return psp.Launch(digest, hostData, 0x30000)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/tpm",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TPM2TOOLS_TCTI", fmt.Sprintf("swtpm:host=127.0.0.1,port=%d", swtpm.TCP(t)))
			return makeAnswer(env, psp)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip,
			"hcl": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), hclReport(ts, guest(ts), ts.ReadFile(args[1])), 0o600))
			},
			"svsm": func(ts *testscript.TestScript, _ bool, args []string) {
				nonce, err := hex.DecodeString(args[0])
				ts.Check(err)
				manifest := []byte(ts.ReadFile(args[1]))[2:]
				report := guest(ts).Report(vtpm.ServiceReportData([64]byte(append(nonce, make([]byte, 64-len(nonce))...)), manifest), 0)
				ts.Check(os.WriteFile(ts.MkAbs(args[2]), report[:], 0o600))
				ts.Check(os.WriteFile(ts.MkAbs(args[3]), manifest, 0o600))
			},
		},
	})
}

func hclReport(ts *testscript.TestScript, guest *simpsp.Guest, ak string) []byte {
	block, _ := pem.Decode([]byte(ak))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	ts.Check(err)
	runtime := fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":%q}]}`,
		base64.RawURLEncoding.EncodeToString(key.(*rsa.PublicKey).N.Bytes()))
	var reportData [64]byte
	sum := sha256.Sum256([]byte(runtime))
	copy(reportData[:], sum[:])
	report := guest.Report(reportData, 0)
	b := bytes.NewBufferString("HCLA")
	size := uint32(len(runtime))
	for _, part := range []any{[]uint32{2, 0x4d4 + size, 2, 0, 0, 0, 0}, report, []uint32{20 + size, 1, 2, 1, size}, []byte(runtime), make([]byte, 64)} {
		ts.Check(binary.Write(b, binary.LittleEndian, part))
	}
	return b.Bytes()
}
