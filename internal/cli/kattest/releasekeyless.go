package kattest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure/release"
)

// keylessProgram signs by identities, and checks what they signed: adr 0014 says
// why it is a program.
const keylessProgram = "kattest-keyless"

const keylessHint = "put " + keylessProgram + " beside kattest or into PATH: go install ./cmd/" + keylessProgram

// askKeyless runs kattest-keyless over a bundle. What it returns is what was
// checked: the bundle is not read a second time.
func askKeyless(ctx context.Context, bundle []byte, id release.Identity, trustedRoot string) (release.Keyless, error) {
	program, err := findKeyless()
	if err != nil {
		return release.Keyless{}, cli.Usage(fmt.Errorf("--identity: %w", err), keylessHint)
	}
	out, err := runKeyless(ctx, program, []string{
		"--trusted-root", trustedRoot,
		"--identity", id.Subject, "--identity-pattern", id.SubjectPattern, "--issuer", id.Issuer, "--issuer-pattern", id.IssuerPattern,
	}, bundle)
	if err != nil {
		return release.Keyless{}, err
	}
	var answer release.Keyless
	if err := strictjson.Decode(out, &answer); err != nil {
		return release.Keyless{}, fmt.Errorf("%s: its answer: %w", program, err)
	}
	if answer.MediaType != release.KeylessMediaType {
		return release.Keyless{}, fmt.Errorf("%s: its answer: mediaType: %.100q, want %q", program, answer.MediaType, release.KeylessMediaType)
	}
	return answer, nil
}

// runKeyless runs kattest-keyless, and returns what it says.
func runKeyless(ctx context.Context, program string, args []string, stdin []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, keylessError(ctx, err, stderr.String())
	}
	return stdout.Bytes(), nil
}

func findKeyless() (string, error) { return findProgram(keylessProgram) }

// findProgram prefers the program that was installed with this one.
func findProgram(name string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err == nil {
		if program, err := exec.LookPath(filepath.Join(filepath.Dir(self), name)); err == nil {
			return program, nil
		}
	}
	return exec.LookPath(name)
}

// keylessError is what the program said, with what its exit code means.
func keylessError(ctx context.Context, err error, stderr string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return fmt.Errorf("running %s: %w", keylessProgram, err)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(stderr, keylessProgram+": error: "), "\n")
	first = printable(first) // it may quote a stranger's certificate
	switch said := errors.New(first); exit.ExitCode() {
	case cli.ExitSignature:
		return fmt.Errorf("%w: %w", release.ErrSignature, said)
	case cli.ExitUsage:
		return cli.Usage(said, "")
	case cli.ExitUnavailable:
		return &cli.Error{Code: cli.ExitUnavailable, Err: said, Hint: "nothing is signed; it may be tried again"}
	default:
		return fmt.Errorf("%s: %w: %w", keylessProgram, err, said)
	}
}

// printable puts question marks for what a terminal would act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
