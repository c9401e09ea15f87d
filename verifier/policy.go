package verifier

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const notGiven = "(not given)"

// checkBinding checks what REPORT_DATA binds: nonce, key and events of the
// evidence, or a value that the caller knows.
func (v *verification) checkBinding() {
	p, r, e := v.policy, v.in.Report, v.in.Evidence
	found := hex.EncodeToString(r.ReportData[:])
	if e != nil {
		v.checkNonce()
		bound := e.ReportData()
		v.compare(Check{
			Code: CodeReportData, Expected: hex.EncodeToString(bound[:]), Found: found,
			Reason: "the report does not bind this evidence's nonce, key and events: they are another's or were changed",
		})
	}
	if p.TLSKey != nil {
		check := Check{Code: CodeTLSKey, Expected: "SHA-256 " + keyID(p.TLSKey), Found: "no evidence", Reason: "the connection ends at another key than the guest's: someone stands between"}
		if e != nil {
			check.Found = "SHA-256 " + keyID(e.PublicKey)
		}
		v.compare(check)
	}
	switch {
	case p.ReportData != nil:
		v.compare(Check{
			Code: CodeReportData, Expected: hex.EncodeToString(p.ReportData[:]), Found: found,
			Reason: "the report was made for another question",
		})
	case e != nil:
	case p.WithoutNonce:
		v.skip(CodeReportData, found, "--without-nonce: the report may be an old one, or another guest's")
	default:
		v.add(Check{
			Code: CodeReportData, Outcome: Fail, Expected: notGiven, Found: found,
			Reason: "nothing says that the report is fresh", Hint: "--report-data HEX, or --without-nonce",
		})
	}
}

func (v *verification) checkNonce() {
	p, e := v.policy, v.in.Evidence
	switch {
	case p.Nonce != nil:
		v.compare(Check{
			Code: CodeNonce, Expected: hex.EncodeToString(p.Nonce), Found: e.Nonce.String(),
			Reason: "the answer is to another challenge: replayed",
		})
	case p.WithoutNonce:
		v.skip(CodeNonce, e.Nonce.String(), "--without-nonce: the answer may be an old one")
	case p.ReportData == nil:
		v.add(Check{
			Code: CodeNonce, Outcome: Fail, Expected: notGiven, Found: e.Nonce.String(),
			Reason: "nothing says that the answer is fresh", Hint: "--nonce HEX, or --without-nonce",
		})
	}
}

func keyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// checkMeasurement looks the measurement up in the references. One that is
// known for another number of vCPUs than the policy's is told apart from one
// that is not known.
func (v *verification) checkMeasurement() {
	p, m := v.policy, v.in.Report.Measurement
	if p.WithoutMeasurement {
		v.skip(CodeMeasurement, m.String(), "--without-measurement: any boot stack would do")
		return
	}
	check := Check{Code: CodeMeasurement, Outcome: Fail, Expected: expectedMeasurement(p), Found: m.String()}
	if len(p.References) == 0 {
		check.Expected, check.Reason = notGiven, "nothing says which boot stack to expect"
		check.Hint = "--release BUNDLE --key PUB, --measurement HEX, or --without-measurement"
		v.add(check)
		return
	}
	var others []string
	for _, ref := range p.References {
		if ref.Measurement != m {
			continue
		}
		if p.VCPUs == 0 || ref.VCPUs == p.VCPUs {
			check.Outcome, check.Expected, check.Reason = Pass, m.String(), ref.Label
			v.add(check)
			return
		}
		others = append(others, ref.Label)
	}
	if len(others) > 0 {
		check.Reason = fmt.Sprintf("a known launch with another number of vCPUs than the %d demanded: %s", p.VCPUs, strings.Join(others, "; "))
	} else {
		check.Reason = unknownLaunch(p.References)
		check.Hint = "'kattest measure' tells which digest a launch has"
	}
	v.add(check)
}

func expectedMeasurement(p Policy) string {
	var digests []string
	for _, ref := range p.References {
		if p.VCPUs == 0 || ref.VCPUs == p.VCPUs {
			digests = append(digests, ref.Measurement.String())
		}
	}
	switch len(digests) {
	case 0:
		return fmt.Sprintf("a launch with %d vCPUs, of which none is known", p.VCPUs)
	case 1:
		return digests[0]
	default:
		return fmt.Sprintf("one of %d digests", len(digests))
	}
}

func unknownLaunch(refs []Reference) string {
	var counts []int
	for _, ref := range refs {
		if ref.VCPUs != 0 && !slices.Contains(counts, ref.VCPUs) {
			counts = append(counts, ref.VCPUs)
		}
	}
	slices.Sort(counts)
	var text []string
	for _, n := range counts {
		text = append(text, strconv.Itoa(n))
	}
	s := fmt.Sprintf("not one of the %d digests given", len(refs))
	if len(text) > 0 {
		s = fmt.Sprintf("not one of the release's %d launches (vCPUs %s)", len(refs), strings.Join(text, ", "))
	}
	return s + "; another firmware, kernel, initrd, command line, number of vCPUs, CPU model or guest features each give another digest"
}

func (v *verification) checkHostData() {
	found := hex.EncodeToString(v.in.Report.HostData[:])
	switch {
	case v.policy.WithoutHostData:
		v.skip(CodeHostData, found, "--without-host-data: any workload would do")
	case v.policy.HostData == nil:
		v.add(Check{
			Code: CodeHostData, Outcome: Fail, Expected: notGiven, Found: found,
			Reason: "nothing says which workload to expect", Hint: "--spec FILE, --host-data HEX, or --without-host-data",
		})
	default:
		v.compare(Check{
			Code: CodeHostData, Expected: hex.EncodeToString(v.policy.HostData[:]), Found: found,
			Reason: "the guest was launched with another launch spec: another image, arguments, environment or setting",
		})
	}
}

func (v *verification) checkGuestPolicy() {
	r, p := v.in.Report, v.policy
	if p.WithoutVMPL {
		v.skip(CodeVMPL, fmt.Sprint(r.VMPL), "--without-vmpl: any privilege level inside the guest would do")
	} else {
		v.compare(Check{
			Code: CodeVMPL, Expected: fmt.Sprint(p.VMPL), Found: fmt.Sprint(r.VMPL),
			Reason: "the report was asked for at another privilege level inside the guest",
		})
	}
	v.checkForbidden(CodeDebug, PolicyDebug, p.WithoutDebug, "--without-debug-check", "the host can read and change this guest's memory (DEBUG)")
	v.checkForbidden(CodeMigration, PolicyMigrateMA, p.WithoutMigration, "--without-migration-check", "a migration agent can move this guest elsewhere (MIGRATE_MA)")

	required, forbidden := p.RequiredBits|PolicyReserved1, p.ForbiddenBits|policyUnknown
	forbidden &^= PolicyDebug | PolicyMigrateMA // these have checks of their own
	check := Check{Code: CodePolicyBits, Outcome: Pass, Expected: fmt.Sprintf("0x%x set, 0x%x clear", uint64(required), uint64(forbidden)), Found: r.Policy.String()}
	var wrong []string
	if missing := required &^ r.Policy; missing != 0 {
		wrong = append(wrong, "not set: "+strings.Join(missing.Names(), ", "))
	}
	if extra := forbidden & r.Policy; extra != 0 {
		wrong = append(wrong, "set: "+strings.Join(extra.Names(), ", "))
	}
	if len(wrong) > 0 {
		check.Outcome, check.Reason = Fail, "guest policy, "+strings.Join(wrong, "; ")
	}
	v.add(check)
}

func (v *verification) checkForbidden(code Code, bit GuestPolicy, without bool, flag, reason string) {
	found := "clear"
	if v.in.Report.Policy&bit != 0 {
		found = "set"
	}
	if without {
		v.skip(code, found, flag)
		return
	}
	v.compare(Check{Code: code, Expected: "clear", Found: found, Reason: reason})
}

// checkTCB refuses provisional firmware, which its owner can roll back, and
// levels below the minimum in any of the TCBs that count: a certificate speaks
// for the reported one, a rollback goes down to the committed one, and the
// guest was launched at the launch one.
func (v *verification) checkTCB() {
	r, p := v.in.Report, v.policy
	committed := fmt.Sprintf("%x, firmware %v", r.CommittedTCB, r.Committed)
	current := fmt.Sprintf("%x, firmware %v", r.CurrentTCB, r.Current)
	if p.WithoutCommitted {
		v.skip(CodeCommittedTCB, committed, "--without-committed-check: the processor's firmware may be rolled back")
	} else {
		v.compare(Check{
			Code: CodeCommittedTCB, Expected: current, Found: committed,
			Reason: "the current firmware is provisional: its host can go back to the committed one without a reset",
			Hint:   "the host's owner commits it (SNP_COMMIT), or --without-committed-check",
		})
	}
	if p.MinimumTCB == nil {
		v.skip(CodeMinimumTCB, "", "no minimum was given (--min-tcb)")
		return
	}
	v.checkMinimumTCB(*p.MinimumTCB)
}

func (v *verification) checkMinimumTCB(floor TCB) {
	r := v.in.Report
	check := Check{Code: CodeMinimumTCB, Outcome: Pass, Expected: "at least " + floor.String()}
	var found, below []string
	for _, t := range []struct {
		name string
		tcb  TCBVersion
	}{{"reported", r.ReportedTCB}, {"committed", r.CommittedTCB}, {"launch", r.LaunchTCB}} {
		tcb, err := t.tcb.Decode(v.product)
		if err != nil {
			below = append(below, t.name+": "+err.Error())
			continue
		}
		if !slices.Contains(found, tcb.String()) {
			found = append(found, tcb.String())
		}
		if !tcb.AtLeast(floor) {
			below = append(below, t.name+" "+tcb.String())
		}
	}
	check.Found = strings.Join(found, "; ")
	if len(below) > 0 {
		check.Outcome, check.Reason = Fail, "below the minimum: "+strings.Join(below, "; ")
	}
	v.add(check)
}
