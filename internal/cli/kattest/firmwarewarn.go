package kattest

import (
	"errors"
	"fmt"
	"io"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
)

// enforcement warns unless the firmware is known to compare what it boots with
// the hashes, and returns what is known. Without kernel hashes there is nothing
// to enforce.
func (in inputs) enforcement(stderr io.Writer) probe.Verdict {
	switch {
	case in.hashes == nil:
		return probe.Unknown
	case in.sum == (measure.Hash{}): // the release's word is all there is
		warnUnverified(stderr, in.claim)
		return probe.Unknown
	}
	known := enforcementOf(stderr, in.sum)
	switch known.Verdict {
	case probe.Enforced:
	case probe.NotEnforced:
		fmt.Fprintf(stderr, "kattest: warning: the firmware does not enforce kernel hashes (%s): the digests say nothing about kernel, initrd and command line\n", known.Source)
	default:
		fmt.Fprintf(stderr, "kattest: warning: whether the firmware enforces kernel hashes is not known (%s): if it does not, the digests say nothing about kernel, initrd and command line\n", known.Source)
		fmt.Fprintln(stderr, "kattest: hint: kattest firmware --probe FILE")
	}
	return known.Verdict
}

// notices warns of what the firmware says that is measured as QEMU takes it,
// though nobody has defined it.
func (in inputs) notices(stderr io.Writer) {
	if in.firmware == nil { // SEV and SEV-ES
		return
	}
	for _, p := range in.firmware.Problems() {
		switch p.Code {
		case measure.ProblemSectionType, measure.ProblemTableEntry:
			fmt.Fprintf(stderr, "kattest: warning: firmware: %v\n", p)
		}
	}
}

// claimOf is what a release may say of a firmware. It is not to promise what is
// known not to hold.
func claimOf(v probe.Verdict) (release.Enforcement, error) {
	switch v {
	case probe.Enforced:
		return release.Enforced, nil
	case probe.NotEnforced:
		return "", &cli.Error{
			Code: cli.ExitMismatch,
			Err:  errors.New("no release of a firmware that does not enforce kernel hashes: its digests would not say which kernel runs"),
			Hint: "take the firmware that kattest build makes",
		}
	default:
		return release.Unverified, nil
	}
}

// warnUnverified warns of a release whose publisher does not say that its
// firmware enforces kernel hashes.
func warnUnverified(stderr io.Writer, claim release.Enforcement) {
	if claim != release.Enforced {
		fmt.Fprintf(stderr, "kattest: warning: the release says %q of its firmware's kernel hashes: if they are not enforced, its digests say nothing about kernel, initrd and command line\n", claim)
	}
}
