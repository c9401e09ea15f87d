package kattest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/internal/fakesigstore"
	"github.com/kraudcloud/kattest/launcher/simpsp"
)

// Scripts find what those of verify do, the KMS plugin of those of idblock, and
// root.json and stranger.json, the trusted roots of two sigstores. $REGISTRY is the
// address of an empty registry, and $NOWHERE one at which nobody listens.
// services1.json and services2.json name the first sigstore's services, with a log of
// either version, and nowhere.json such that are not there. $ACTIONS is where GitHub
// Actions would give a token; $TOKEN, token and expired are such. They may use:
//
//	keyless BUNDLE OUT SUBJECT ISSUER [no-log|no-sct|no-time|expired]
//	                        sign a bundle's statement anew, by an identity of the first sigstore
//	statement VARIABLE FILE put the SHA-256 of a bundle's statement into a variable
//	alone                   leave no program but kattest in PATH, and none beside it
//	recmdline FOLDER CMDLINE, flip FILE OFFSET, exits CODE COMMAND [ARG...]
func TestReleaseScripts(t *testing.T) {
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	sigstore, root := newSigstore(t)
	_, stranger := newSigstore(t)
	plugins := buildPlugin(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/release",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", plugins+string(os.PathListSeparator)+env.Getenv("PATH"))
			server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
			env.Defer(server.Close)
			env.Setenv("REGISTRY", strings.TrimPrefix(server.URL, "http://"))
			env.Setenv("NOWHERE", "127.0.0.1:1")
			if err := serveSigstore(env, sigstore); err != nil {
				return err
			}
			env.Setenv("SOON", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			env.Setenv("LATER", time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339))
			return errors.Join(makeAnswer(env, psp),
				os.WriteFile(filepath.Join(env.WorkDir, "root.json"), root, 0o600),
				os.WriteFile(filepath.Join(env.WorkDir, "stranger.json"), stranger, 0o600))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip, "recmdline": changeCmdline, "setdigest": setDigest,
			"statement": setStatement, "alone": leaveAlone,
			"keyless": func(ts *testscript.TestScript, _ bool, args []string) { signKeyless(ts, sigstore, args) },
		},
	})
}

// serveSigstore serves what --sign keyless asks.
func serveSigstore(env *testscript.Env, a *fakesigstore.Authority) error {
	server := httptest.NewServer(&fakesigstore.Server{Authority: a})
	env.Defer(server.Close)
	by := fakesigstore.Signing{Subject: "https://forge.example/acme/stack/release.yml@refs/tags/v1.0", Issuer: "https://token.forge.example"}
	token := fakesigstore.IdentityToken(by, time.Now().Add(time.Hour))
	env.Setenv("TOKEN", token)
	env.Setenv("ACTIONS", server.URL+fakesigstore.PathToken+"?"+url.Values{"subject": {by.Subject}, "issuer": {by.Issuer}}.Encode())
	env.Setenv("ACTIONS_SECRET", fakesigstore.Secret)
	files := map[string][]byte{"token": []byte(token + "\n"), "expired": []byte(fakesigstore.IdentityToken(by, time.Now().Add(-time.Minute)))}
	for name, of := range map[string]struct {
		address string
		version uint32
	}{"services1.json": {server.URL, 1}, "services2.json": {server.URL, 2}, "nowhere.json": {"http://127.0.0.1:1", 1}} {
		config, err := fakesigstore.SigningConfig(of.address, of.version)
		if err != nil {
			return err
		}
		files[name] = config
	}
	var errs []error
	for name, data := range files {
		errs = append(errs, os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o600))
	}
	return errors.Join(errs...)
}

func newSigstore(t *testing.T) (*fakesigstore.Authority, []byte) {
	t.Helper()
	a, err := fakesigstore.New()
	if err != nil {
		t.Fatal(err)
	}
	root, err := a.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	return a, root
}

// payload returns the statement of a bundle.
func payload(ts *testscript.TestScript, file string) []byte {
	var b struct {
		DSSEEnvelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &b))
	return b.DSSEEnvelope.Payload
}

func setStatement(ts *testscript.TestScript, _ bool, args []string) {
	sum := sha256.Sum256(payload(ts, args[1]))
	ts.Setenv(args[0], hex.EncodeToString(sum[:]))
}

func signKeyless(ts *testscript.TestScript, a *fakesigstore.Authority, args []string) {
	s := fakesigstore.Signing{Subject: args[2], Issuer: args[3]}
	for _, lack := range args[4:] {
		switch lack {
		case "no-log":
			s.WithoutLog = true
		case "no-sct":
			s.WithoutSCT = true
		case "no-time":
			s.WithoutTimestamp, s.WithoutPromise = true, true
		case "expired":
			s.Certified = time.Now().Add(-time.Hour)
		default:
			ts.Fatalf("unknown lack %q", lack)
		}
	}
	b, err := a.Sign(payload(ts, args[0]), s)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// leaveAlone puts kattest into a folder of its own, which is all of PATH.
func leaveAlone(ts *testscript.TestScript, _ bool, _ []string) {
	self, err := exec.LookPath("kattest")
	ts.Check(err)
	dir := ts.MkAbs("alone")
	ts.Check(os.Mkdir(dir, 0o700))
	ts.Check(os.Link(self, filepath.Join(dir, "kattest"))) // a copy could be busy in a fork of another test
	ts.Setenv("PATH", dir)
}
