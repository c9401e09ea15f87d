// Package verifier judges what an AMD SEV-SNP guest answers: whether a genuine
// processor signed the report, and whether the report says what a policy
// demands. Every check stands in the result, with what was expected and found.
//
// It judges bytes that it is given; what else it needs it asks of a Source. It
// does not check who signed the reference values that a policy carries, and
// cannot see what a guest does after its launch: a report tells what was
// launched, with which firmware. The checks are documented in
// docs/spec/checks.md, the result's format in docs/spec/result.md.
package verifier

import (
	"context"
	"errors"
	"time"
)

// Verifier judges reports. It remembers the certificates and revocation lists
// whose signatures it has checked, and is safe for concurrent use.
type Verifier struct {
	source Source
	cache  cache
}

// New returns a Verifier that asks source for what comes neither with a report
// nor with a policy. source may be nil: then nothing is asked for.
func New(source Source) *Verifier { return &Verifier{source: source} }

// ErrTime says that a policy has no time at which to judge certificates.
var ErrTime = errors.New("the policy names no time at which to judge certificates")

// Judge parses data and judges it by policy, as Verify does. Input that is no
// report gets a Result too, with the verdict Malformed. name is for the result.
func (v *Verifier) Judge(ctx context.Context, name string, data []byte, policy Policy) (Result, error) {
	if err := policy.check(); err != nil {
		return Result{}, err
	}
	in, err := ParseInput(data)
	if err != nil {
		r := malformed(err, policy)
		r.Subject, r.Form = name, formOf(data)
		return r, &Refusal{r}
	}
	r, err := v.Verify(ctx, in, policy)
	if r.Verdict == 0 {
		return Result{}, err
	}
	r.Subject = name
	return r, r.err()
}

// Verify judges in by policy. The error is nil for a success alone: the verdict
// Verified, or Authentic where the policy asks for no more. A refusal is a
// *Refusal, and the Result is whole. Any other error means that the policy
// cannot be applied or that ctx has ended, and comes with the zero Result.
func (v *Verifier) Verify(ctx context.Context, in Input, policy Policy) (Result, error) {
	if err := policy.check(); err != nil {
		return Result{}, err
	}
	run := &verification{Verifier: v, in: in, policy: &policy}
	run.checks = make([]Check, 0, len(catalogue))
	if err := run.checkAuthenticity(ctx); err != nil {
		return Result{}, err
	}
	if !policy.AuthenticityOnly {
		run.checkBinding()
		run.checkTPM()
		if err := run.checkMeasurement(ctx); err != nil {
			return Result{}, err
		}
		run.checkIDBlock()
		run.checkHostData()
		run.checkGuestPolicy()
		run.checkPlatform()
		run.checkTCB()
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	r := run.result()
	return r, r.err()
}

// verification collects the checks of one call of Verify.
type verification struct {
	*Verifier
	in        Input
	policy    *Policy
	product   Product
	simulated bool
	reference Reference  // which matched; zero if none did
	tpm       *TPMClaims // of a quote that holds
	checks    []Check
}

// result puts the checks together.
func (v *verification) result() Result {
	return Result{
		MediaType:        MediaType,
		Form:             v.in.form(),
		Verdict:          verdict(v.checks, v.policy.AuthenticityOnly),
		Simulated:        v.simulated,
		AuthenticityOnly: v.policy.AuthenticityOnly,
		Time:             v.policy.Time.UTC().Truncate(time.Second),
		Product:          v.product,
		SigningKey:       v.in.Report.SignerInfo.SigningKey(),
		Claims:           v.in.Report.claims(),
		TPM:              v.tpm,
		Checks:           v.checks,
	}
}

// add completes a check from the catalogue.
func (v *verification) add(c Check) { v.checks = append(v.checks, completed(c)) }

func completed(c Check) Check {
	info := c.Code.info()
	if c.Field == "" {
		c.Field = info.Field
	}
	if c.Bytes == nil && info.Bytes != (Range{}) {
		c.Bytes = &info.Bytes
	}
	return c
}

// compare adds a check that passes where expected and found are the same.
func (v *verification) compare(c Check) {
	c.Outcome = Fail
	if c.Expected == c.Found {
		c.Outcome, c.Reason, c.Hint = Pass, "", ""
	}
	v.add(c)
}

func (v *verification) skip(code Code, found, reason string) {
	v.add(Check{Code: code, Outcome: Skipped, Found: found, Reason: reason})
}

// malformed turns what ParseInput says into a result.
func malformed(err error, policy Policy) Result {
	r := Result{
		MediaType: MediaType, Verdict: Malformed, AuthenticityOnly: policy.AuthenticityOnly,
		Time: policy.Time.UTC().Truncate(time.Second),
	}
	for _, p := range problems(err) {
		c := Check{Code: p.Code, Outcome: Fail, Expected: p.Expected, Found: p.Found, Reason: p.Reason}
		if p.Bytes != (Range{}) {
			c.Bytes = &p.Bytes
		}
		r.Checks = append(r.Checks, completed(c))
	}
	return r
}
