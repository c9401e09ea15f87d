package verifier

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

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

	v.checkMigrationAgent()
	v.checkABI()

	required := p.RequiredBits | v.reference.RequiredBits | PolicyReserved1
	forbidden := p.ForbiddenBits | v.reference.ForbiddenBits | policyUnknown
	forbidden &^= PolicyDebug | PolicyMigrateMA // these have checks of their own
	v.checkBits(Check{Code: CodePolicyBits, Found: r.Policy.String()}, uint64(required), uint64(forbidden), uint64(r.Policy), policyNames)
}

// checkBits adds the check that all of required are set in bits, and none of forbidden.
func (v *verification) checkBits(c Check, required, forbidden, bits uint64, names []string) {
	c.Outcome, c.Expected = Pass, fmt.Sprintf("0x%x set, 0x%x clear", required, forbidden)
	var wrong []string
	if missing := required &^ bits; missing != 0 {
		wrong = append(wrong, "not set: "+strings.Join(bitNames(missing, names), ", "))
	}
	if extra := forbidden & bits; extra != 0 {
		wrong = append(wrong, "set: "+strings.Join(bitNames(extra, names), ", "))
	}
	if len(wrong) > 0 {
		c.Outcome, c.Reason = Fail, strings.Join(wrong, "; ")
	}
	v.add(c)
}

// noAgent is the REPORT_ID_MA of a guest without a migration agent.
var noAgent = [32]byte(bytes.Repeat([]byte{0xff}, 32))

func (v *verification) checkMigrationAgent() {
	id := v.in.Report.ReportIDMA
	check := Check{
		Code: CodeMigrationAgent, Outcome: Fail, Expected: "none", Found: hex.EncodeToString(id[:]),
		Reason: "the guest has a migration agent, which can take it elsewhere, and it is not one that is accepted",
	}
	if n := len(v.policy.MigrationAgents); n > 0 {
		check.Expected = fmt.Sprintf("none, or one of %d", n)
	}
	if id == noAgent || slices.Contains(v.policy.MigrationAgents, id) {
		check.Outcome, check.Reason = Pass, ""
	}
	if id == noAgent {
		check.Found = "none"
	}
	v.add(check)
}

func (v *verification) checkABI() {
	minimum, p := v.policy.MinimumABI, v.in.Report.Policy
	if minimum == (ABIVersion{}) {
		return
	}
	found := ABIVersion{p.ABIMajor(), p.ABIMinor()}
	check := Check{Code: CodePolicyABI, Outcome: Pass, Expected: "at least " + minimum.String(), Found: found.String()}
	if found.Major < minimum.Major || found.Major == minimum.Major && found.Minor < minimum.Minor {
		check.Outcome, check.Reason = Fail, "the guest could run on firmware with an older ABI than is accepted"
	}
	v.add(check)
}

// checkPlatform checks product, chip and the platform's settings.
func (v *verification) checkPlatform() {
	p, r := v.policy, v.in.Report
	if v.product != UnknownProduct || r.Version >= 3 { // else nothing names it but a certificate, which is missing
		var allowed []string
		for _, known := range products {
			if _, ok := p.Products[known]; ok {
				allowed = append(allowed, known.String())
			}
		}
		check := Check{
			Code: CodeAllowedProduct, Outcome: Pass, Expected: strings.Join(allowed, ", "), Found: v.product.String(),
		}
		if _, ok := p.Products[v.product]; !ok || v.product == UnknownProduct {
			check.Outcome, check.Reason = Fail, "the policy does not accept this product"
		}
		if len(allowed) == 0 {
			check.Expected = notGiven
		}
		v.add(check)
	}
	if len(p.Chips) > 0 {
		check := Check{Code: CodeAllowedChip, Outcome: Fail, Expected: fmt.Sprintf("one of %d", len(p.Chips)), Found: hex.EncodeToString(r.ChipID[:])}
		switch {
		case r.ChipID == [64]byte{}:
			check.Found, check.Reason = "masked", "the report does not name its chip"
		case slices.Contains(p.Chips, r.ChipID):
			check.Outcome = Pass
		default:
			check.Reason = "another chip than those on the list"
		}
		v.add(check)
	}
	v.checkBits(Check{Code: CodePlatform, Found: r.PlatformInfo.String()}, uint64(p.RequiredPlatform), uint64(p.ForbiddenPlatform), uint64(r.PlatformInfo), platformNames)
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
