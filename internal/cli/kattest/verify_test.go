package kattest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Scripts find in $WORK a boot stack and what a guest that was launched from it
// on the simulated platform answers, and what it may be judged by:
//
//	ear.key                                       a key to sign with
//	stack/ release.json release.pub other.pub     the release of 1 and 2 vCPUs, and another key
//	spec.json other.json                          the launch spec, and another one
//	evidence.json report.bin bare.bin vcek.der    the answer, the report with certificates and without, the certificate
//	debug.bin                                     a report with certificates of a guest with DEBUG, at VMPL 1
//	chain.pem                                     the simulated PSP's
//
// $NONCE, $REPORT_DATA, $HOST_DATA and $MEASUREMENT are the answer's, $ZERO is
// another nonce; $AGENT_… are addresses of agents that are good or lie.
func TestVerifyScripts(t *testing.T) {
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/verify",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup:         func(env *testscript.Env) error { return makeAnswer(env, psp) },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip, "recmdline": changeCmdline,
		},
	})
}

// changeCmdline FOLDER CMDLINE gives the stack in FOLDER another command line.
func changeCmdline(ts *testscript.TestScript, _ bool, args []string) {
	s, err := stack.Read(ts.MkAbs(args[0]))
	ts.Check(err)
	s.Cmdline = args[1]
	data, err := s.Encode()
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), stack.Manifest), data, 0o600))
}

// answer is a guest and what it has answered.
type answer struct {
	guest       *simpsp.Guest
	measurement measure.Digest
	nonce       []byte
	key         []byte
	exporter    []byte
}

func (a answer) to(nonce []byte) evidence.Evidence {
	e := evidence.Evidence{
		MediaType: evidence.MediaType, Nonce: nonce, PublicKey: a.key, Exporter: a.exporter,
		Events: []evidence.Event{{Name: "spec", Value: "x"}},
	}
	report := a.guest.Report(e.ReportData(), 0)
	e.Report, e.Certificates = report[:], a.guest.Certificates()
	return e
}

func makeAnswer(env *testscript.Env, psp *simpsp.PSP) error {
	work := func(name string) string { return filepath.Join(env.WorkDir, name) }
	if err := errors.Join(clitest.WriteStack(work("stack"), "console=ttyS0 quiet"), clitest.Probed(env, true)); err != nil {
		return err
	}
	if _, err := newPair(work("ear"), elliptic.P256()); err != nil {
		return err
	}
	digest, err := publish(work("stack"), work("release.json"), work("release.pub"), work("other.pub"))
	if err != nil {
		return err
	}
	spec := pod.Spec{
		MediaType: pod.MediaType,
		Image:     pod.Image{Digest: "sha256:" + strings.Repeat("ab", 32), Verity: pod.Verity{RootHash: pod.Hash{1}, DataBlocks: 1}},
		Process:   pod.Process{Args: []string{"true"}, Env: []string{}, WorkingDir: "/", Capabilities: []string{}, StopSignal: "SIGTERM"},
		Network:   pod.Network{Hostname: "guest"},
		Console:   pod.ConsoleNone,
	}
	hostData, err := spec.HostData()
	if err != nil {
		return err
	}
	a := answer{
		guest: psp.Launch(digest, hostData, 0x30000), measurement: digest,
		nonce: bytes.Repeat([]byte{0xa5}, 32), key: []byte("a guest's key"), exporter: bytes.Repeat([]byte{0x5a}, evidence.ExporterSize),
	}
	e := a.to(a.nonce)
	evidenceJSON, err := json.Marshal(e)
	if err != nil {
		return err
	}
	specJSON, err := spec.Canonical()
	if err != nil {
		return err
	}
	spec.Process.Args = []string{"false"}
	otherJSON, err := spec.Canonical()
	if err != nil {
		return err
	}
	open := psp.Launch(digest, hostData, 0xb0000).Report([64]byte{}, 1)
	for name, data := range map[string][]byte{
		"spec.json": specJSON, "other.json": otherJSON, "evidence.json": evidenceJSON,
		"report.bin": append(bytes.Clone(e.Report), e.Certificates...), "bare.bin": e.Report,
		"debug.bin": append(open[:], e.Certificates...),
		"vcek.der":  psp.VCEK(), "chain.pem": psp.Chain(),
	} {
		if err := os.WriteFile(work(name), data, 0o600); err != nil {
			return err
		}
	}
	reportData := e.ReportData()
	env.Setenv("NONCE", hex.EncodeToString(a.nonce))
	env.Setenv("ZERO", strings.Repeat("00", 32))
	env.Setenv("ZERO_MEASUREMENT", measure.Digest{}.String())
	env.Setenv("REPORT_DATA", hex.EncodeToString(reportData[:]))
	env.Setenv("HOST_DATA", hostData.String())
	env.Setenv("MEASUREMENT", digest.String())
	serveAgents(env, a)
	return nil
}

// publish signs a release of the stack with a new key, and returns the digest
// of the launch with one vCPU.
func publish(stackDir, bundle, pub, other string) (measure.Digest, error) {
	manifest, fw, err := stack.LoadFirmware(stackDir)
	if err != nil {
		return measure.Digest{}, err
	}
	cpu, err := measure.ParseCPU("EPYC-v4")
	if err != nil {
		return measure.Digest{}, err
	}
	var shapes []measure.Shape
	for _, vcpus := range []int{1, 2} {
		shapes = append(shapes, measure.Shape{VMM: measure.QEMU, VCPUs: vcpus, CPU: cpu, GuestFeatures: measure.SNPActive})
	}
	r, err := release.New(manifest, fw, shapes, release.Enforced)
	if err != nil {
		return measure.Digest{}, err
	}
	key, err := newKey(pub)
	if err != nil {
		return measure.Digest{}, err
	}
	if _, err := newKey(other); err != nil {
		return measure.Digest{}, err
	}
	b, err := release.Sign(r, key)
	if err != nil {
		return measure.Digest{}, err
	}
	return r.Table[0].Measurement, os.WriteFile(bundle, b, 0o600)
}

func newKey(pub string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(pub, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

// serveAgents starts an agent that is good, and some that are not.
func serveAgents(env *testscript.Env, a answer) {
	respond := func(w http.ResponseWriter, key, exporter, nonce []byte) {
		a := a
		a.key, a.exporter = key, exporter
		_ = json.NewEncoder(w).Encode(a.to(nonce)) // the client may have gone
	}
	var once sync.Once // the servers end together
	ended := make(chan struct{})
	for name, handle := range map[string]func(w http.ResponseWriter, key, exporter, nonce []byte){
		"GOOD":   respond,
		"RELAY":  func(w http.ResponseWriter, _, exporter, nonce []byte) { respond(w, a.key, exporter, nonce) },
		"REPLAY": func(w http.ResponseWriter, key, exporter, _ []byte) { respond(w, key, exporter, a.nonce) },
		"OTHERS": func(w http.ResponseWriter, key, _, nonce []byte) { respond(w, key, a.exporter, nonce) },
		"REDIRECT": func(w http.ResponseWriter, _, _, _ []byte) {
			w.Header().Set("Location", "https://127.0.0.1:1/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"GARBAGE": func(w http.ResponseWriter, _, _, _ []byte) { _, _ = io.WriteString(w, `{"mediaType":`) },
		"HUGE": func(w http.ResponseWriter, _, _, _ []byte) {
			_, _ = w.Write(bytes.Repeat([]byte(" "), evidence.MaxSize+1))
		},
		"SILENT": func(http.ResponseWriter, []byte, []byte, []byte) { <-ended },
	} {
		var server *httptest.Server
		server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || r.Method != http.MethodPost || r.URL.Path != evidence.ChallengePath {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			c, err := evidence.ParseChallenge(body)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			exporter, err := r.TLS.ExportKeyingMaterial(evidence.ExporterLabel, nil, evidence.ExporterSize)
			if err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			handle(w, server.Certificate().RawSubjectPublicKeyInfo, exporter, c.Nonce)
		}))
		server.StartTLS()
		env.Setenv("AGENT_"+name, server.Listener.Addr().String())
		env.Defer(func() {
			once.Do(func() { close(ended) })
			server.CloseClientConnections()
			server.Close()
		})
	}
	env.Setenv("AGENT_NONE", "127.0.0.1:1")
	env.Setenv("NOW", time.Now().UTC().Format(time.RFC3339))
}
