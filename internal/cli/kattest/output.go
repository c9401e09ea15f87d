package kattest

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/pemkey"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/render"
)

// outputFlags say in which form results are written.
type outputFlags struct {
	form, earKey string
	key          crypto.Signer // of earKey
}

var outputForms = []string{"text", "json", "junit", "sarif", "ear"}

func (f *outputFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.form, "output", "text", "form of the answer: "+strings.Join(outputForms, ", "))
	flags.StringVar(&f.earKey, "ear-key", "", "private key, PEM, that signs an EAR; an encrypted one is opened with COSIGN_PASSWORD")
}

// check refuses an unknown form, and opens the key that an EAR needs.
func (f *outputFlags) check() error {
	switch f.form {
	case "text", "json", "junit", "sarif":
		if f.earKey != "" {
			return fmt.Errorf("--ear-key: --output %s is not signed", f.form)
		}
		return nil
	case "ear":
		if f.earKey == "" {
			return errors.New("--output ear: an EAR is signed: --ear-key is missing")
		}
		var err error
		if f.key, err = pemkey.ReadPrivate(f.earKey); err != nil {
			return fmt.Errorf("--ear-key: %w", err)
		}
		return nil
	default:
		return fmt.Errorf("--output: %q is not one of %s", f.form, strings.Join(outputForms, ", "))
	}
}

// write writes one result, or the many of a command line that names several.
// policyID names the policy by which was judged.
func (f *outputFlags) write(w io.Writer, results []verifier.Result, many bool, policyID string) error {
	var err error
	switch {
	case f.form == "junit":
		err = render.JUnit(w, results)
	case f.form == "sarif":
		err = render.SARIF(w, results, version())
	case f.form == "ear":
		err = render.EAR(w, results, render.Issuer{
			Key: f.key, Developer: "https://github.com/kraudcloud/kattest", Build: "kattest " + version(), PolicyID: policyID, IssuedAt: time.Now(),
		})
	case f.form == "json" && many:
		err = render.JSONSummary(w, results)
	case f.form == "json":
		err = render.JSON(w, results[0])
	case many:
		err = render.TextSummary(w, results)
	default:
		err = render.Text(w, results[0])
	}
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// version is the module's, or the commit's where it was built from a checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// exit returns the exit code of the worst verdict: not authentic, mismatch,
// malformed, undecided, in this order.
func exit(results []verifier.Result) error {
	seen := map[verifier.Verdict]bool{}
	for _, r := range results {
		seen[r.Verdict] = true
	}
	for _, worst := range []struct {
		verdict verifier.Verdict
		code    int
	}{
		{verifier.Forged, cli.ExitSignature},
		{verifier.Mismatch, cli.ExitMismatch},
		{verifier.Malformed, cli.ExitUsage},
		{verifier.Unavailable, cli.ExitUnavailable},
	} {
		if seen[worst.verdict] {
			return &cli.Silent{Code: worst.code}
		}
	}
	return nil
}
