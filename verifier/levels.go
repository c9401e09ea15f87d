package verifier

import (
	"encoding/hex"
	"fmt"
)

// checkTCB refuses provisional firmware, which its owner can roll back, and
// levels below the product's minima.
func (v *verification) checkTCB() {
	r, p := v.in.Report, v.policy
	committed := fmt.Sprintf("%x, firmware %v", r.CommittedTCB, r.Committed)
	current := fmt.Sprintf("%x, firmware %v", r.CurrentTCB, r.Current)
	if p.WithoutCommitted {
		v.skip(CodeProvisional, committed, "--without-committed-check: the processor's firmware may be rolled back")
	} else {
		v.compare(Check{
			Code: CodeProvisional, Expected: current, Found: committed,
			Reason: "the current firmware is provisional: its host can go back to the committed one without a reset",
			Hint:   "the host's owner commits it (SNP_COMMIT), or --without-committed-check",
		})
	}
	minima, ok := p.Products[v.product]
	if !ok {
		return // the check of the product has said so
	}
	v.checkLevels(CodeReportedTCB, r.ReportedTCB, minima.Reported)
	v.checkLevels(CodeCommittedTCB, r.CommittedTCB, minima.Committed)
	v.checkLevels(CodeLaunchTCB, r.LaunchTCB, minima.Launch)
	v.checkFirmware(minima.Firmware)
	v.checkMitigations(CodeLaunchMit, minima.LaunchMitigations, r.LaunchMitVector)
	v.checkMitigations(CodeCurrentMit, minima.CurrentMitigations, r.CurrentMit)
}

func (v *verification) checkLevels(code Code, version TCBVersion, floor TCB) {
	tcb, err := version.Decode(v.product)
	check := Check{Code: code, Expected: "at least " + floor.String(), Found: tcb.String()}
	switch {
	case err != nil:
		check.Outcome, check.Found, check.Reason = Fail, hex.EncodeToString(version[:]), err.Error()
	case floor == TCB{}:
		v.skip(code, tcb.String(), fmt.Sprintf("the policy has no minimum for %v", v.product))
		return
	case tcb.AtLeast(floor):
		check.Outcome = Pass
	default:
		check.Outcome, check.Reason = Fail, "below the minimum in "+tcb.below(floor)
		check.Hint = "the host needs newer firmware or microcode; 'kattest policy explain' shows what this report reaches"
	}
	v.add(check)
}

// checkFirmware checks the version of the SNP firmware, where a minimum is given.
func (v *verification) checkFirmware(minimum FirmwareVersion) {
	if minimum == (FirmwareVersion{}) {
		return
	}
	r := v.in.Report
	check := Check{
		Code: CodeFirmware, Outcome: Pass, Expected: fmt.Sprintf("at least %v", minimum),
		Found: fmt.Sprintf("current %v, committed %v", r.Current, r.Committed),
	}
	if r.Current.before(minimum) || r.Committed.before(minimum) {
		check.Outcome, check.Reason = Fail, "the SNP firmware is older than is accepted, or can be rolled back to one that is"
	}
	v.add(check)
}

// checkMitigations checks a mitigation vector, where bits are demanded.
func (v *verification) checkMitigations(code Code, required, found uint64) {
	if required == 0 {
		return
	}
	check := Check{Code: code, Outcome: Pass, Expected: fmt.Sprintf("0x%x set", required), Found: fmt.Sprintf("0x%x", found)}
	if v.in.Report.Version < 5 {
		check.Found = fmt.Sprintf("none in a report of version %d", v.in.Report.Version)
	}
	if missing := required &^ found; missing != 0 {
		check.Outcome, check.Reason = Fail, fmt.Sprintf("not on: 0x%x", missing)
	}
	v.add(check)
}
