package verifier

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// TPM is what came of a virtual TPM beside the report.
type TPM struct {
	// HCL is an Azure confidential VM's, SVSM a service attestation: one of them
	// is there.
	HCL      *vtpm.HCL
	SVSM     *evidence.SVSM
	Quote    *evidence.Quote // nil where there is none
	EventLog []byte          // of the firmware; may be empty

	bare bool // an HCL report as it stands in the TPM
}

// TPMPolicy says what is demanded of a virtual TPM. Where it is not nil, a quote
// is demanded.
type TPMPolicy struct {
	// PCRs are values of which each register must have one.
	PCRs map[vtpm.PCR][][]byte
	// Quoted must be quoted, whatever their values.
	Quoted []vtpm.PCR
	// EventLog demands a firmware event log. One that is there is judged in any case.
	EventLog bool
	// Credential is the one that an SVSM's quote answers. An SVSM binds the EK
	// alone: without a credential nothing says that the AK is of the same TPM.
	Credential *TPMCredential
}

// TPMCredential is what was given to a guest by vtpm.MakeCredential.
type TPMCredential struct {
	EK     []byte // public area of the endorsement key for which it was made
	AKName []byte // Name of the attestation key for which it was made
	Secret [vtpm.CredentialSize]byte
}

// TPMClaims is what a quote says whose signature holds.
type TPMClaims struct {
	AK   string                  `json:"ak"`
	PCRs map[string]evidence.Hex `json:"pcrs"` // by names such as sha256:7
}

// checkTPM judges what came of a virtual TPM. What follows from something that
// failed is not judged.
func (v *verification) checkTPM() {
	if v.in.TPM == nil || v.in.TPM.Quote == nil {
		v.checkWithoutQuote()
		return
	}
	ak, ok := v.checkTPMBinding()
	if !ok {
		return
	}
	quote, err := vtpm.VerifyQuote(ak, v.in.TPM.Quote.Message, v.in.TPM.Quote.Signature)
	if err != nil {
		v.add(Check{Code: CodeTPMQuote, Outcome: Fail, Expected: "a quote signed by the AK", Found: ak.String(), Reason: err.Error()})
		return
	}
	v.add(Check{Code: CodeTPMQuote, Outcome: Pass, Expected: "a quote signed by the AK", Found: ak.String()})
	v.checkTPMNonce(quote.ExtraData)
	v.checkCredential(ak, quote.ExtraData)
	pcrs, err := quote.PCRs(v.in.TPM.Quote.PCRs)
	if err != nil {
		v.add(Check{Code: CodeTPMPCRs, Outcome: Fail, Expected: "the values that were quoted", Found: "others", Reason: err.Error()})
		return
	}
	v.add(Check{Code: CodeTPMPCRs, Outcome: Pass, Expected: "the values that were quoted", Found: names(slices.Collect(maps.Keys(pcrs)))})
	v.tpm = &TPMClaims{AK: ak.String(), PCRs: map[string]evidence.Hex{}}
	for pcr, value := range pcrs {
		v.tpm.PCRs[pcr.String()] = value
	}
	v.checkEventLog(pcrs)
	v.checkPCRs(pcrs)
}

// checkWithoutQuote judges what binds a report to its runtime data or manifest,
// and that no quote was demanded.
func (v *verification) checkWithoutQuote() {
	if v.in.TPM != nil {
		v.checkTPMBinding()
		var userData []byte
		if v.in.TPM.HCL != nil {
			userData = v.in.TPM.HCL.UserData
		}
		v.checkTPMNonce(userData)
	}
	switch {
	case v.policy.TPM != nil:
		v.add(Check{
			Code: CodeTPMPolicy, Outcome: Fail, Field: "quote", Expected: "a quote signed by the AK", Found: "none",
			Reason: "the policy demands values of PCRs, and nothing tells them", Hint: "give TPM evidence (docs/spec/tpm.md)",
		})
	case v.in.TPM != nil:
		v.skip(CodeTPMQuote, "none", "no quote: of what runs above the launched code nothing is known")
	}
}

// checkTPMBinding checks that REPORT_DATA binds the AK, or the EK to which a
// credential binds the AK, and returns the AK. Paravisor and SVSM are at VMPL 0,
// whatever level the policy accepts.
func (v *verification) checkTPMBinding() (ak vtpm.Key, ok bool) {
	t := v.in.TPM
	var bound [64]byte
	var err error
	what := "the runtime data, SHA-256 "
	if t.HCL != nil {
		bound, ak = t.HCL.ReportData(), t.HCL.AK
	} else {
		what = "the nonce and manifest, SHA-512 "
		bound = vtpm.ServiceReportData([vtpm.NonceSize]byte(t.SVSM.Nonce), t.SVSM.Manifest)
		if _, err = vtpm.ParseManifest(t.SVSM.Manifest); err == nil && t.Quote != nil {
			ak, err = vtpm.ParseAK(t.SVSM.AK)
		}
	}
	check := Check{
		Code: CodeTPMBinding, Outcome: Pass, Expected: what + hex.EncodeToString(bound[:]), Found: hex.EncodeToString(v.in.Report.ReportData[:]),
	}
	switch {
	case v.in.Report.VMPL != 0:
		check.Outcome, check.Reason = Fail, fmt.Sprintf("asked for at VMPL %d: the guest that the TPM serves can have made it itself", v.in.Report.VMPL)
	case bound != v.in.Report.ReportData:
		check.Outcome, check.Reason = Fail, "the report does not bind these keys: they are another guest's, or made up"
	case err != nil:
		check.Outcome, check.Reason = Fail, err.Error()
	}
	v.add(check)
	return ak, check.Outcome == Pass
}

// checkTPMNonce checks freshness. On Azure a quote's extraData is the nonce, and
// without a quote the guest's own data in the runtime data; an SVSM's report has
// a nonce of its own. Both fields have zeros behind a nonce that is shorter.
func (v *verification) checkTPMNonce(data []byte) {
	check := Check{Code: CodeTPMNonce, Field: "extraData", Found: hex.EncodeToString(data)}
	padded := true
	switch t := v.in.TPM; {
	case t.SVSM != nil:
		check.Field, check.Found = "svsm.nonce", t.SVSM.Nonce.String()
	case t.Quote == nil:
		check.Field = "user-data"
	default:
		padded = false
	}
	switch {
	case v.policy.Nonce != nil:
		expected := bytes.Clone(v.policy.Nonce)
		if padded && len(expected) < vtpm.NonceSize {
			expected = append(expected, make([]byte, vtpm.NonceSize-len(expected))...)
		}
		check.Expected, check.Reason = hex.EncodeToString(expected), "the answer is to another challenge: replayed"
		v.compare(check)
	case v.policy.ReportData != nil && padded: // which binds what stands here
	case v.policy.WithoutNonce:
		check.Outcome, check.Reason = Skipped, "--without-nonce: the answer may be an old one"
		v.add(check)
	default:
		check.Outcome, check.Expected = Fail, notGiven
		check.Reason, check.Hint = "nothing says that the answer is fresh", "--nonce HEX, or --without-nonce"
		v.add(check)
	}
}

// checkCredential checks that the AK of an SVSM's guest is in the TPM whose EK
// the report binds: the quote holds a secret that only such a TPM could read.
func (v *verification) checkCredential(ak vtpm.Key, extraData []byte) {
	if v.in.TPM.SVSM == nil {
		return
	}
	check := Check{Code: CodeTPMCredential, Expected: notGiven, Found: hex.EncodeToString(extraData), Outcome: Fail}
	ek, err := vtpm.ParseManifest(v.in.TPM.SVSM.Manifest)
	if v.policy.TPM == nil || v.policy.TPM.Credential == nil || err != nil {
		check.Reason, check.Hint = "an SVSM's report binds the EK alone: nothing says that the AK is of the same TPM", "kattest tpm credential, then --tpm-credential FILE"
		v.add(check)
		return
	}
	c := v.policy.TPM.Credential
	check.Expected = hex.EncodeToString(c.Secret[:])
	switch {
	case !bytes.Equal(c.EK, ek):
		check.Reason = "the credential was made for another EK"
	case !bytes.Equal(c.AKName, ak.Name()):
		check.Reason = "the credential was made for another AK"
	case !bytes.Equal(c.Secret[:], extraData):
		check.Reason = "the quote does not hold the credential's secret: the AK is not in the TPM with this EK, or the quote is an old one"
	default:
		check.Outcome = Pass
	}
	v.add(check)
}

// checkEventLog checks that the log, where there is one, explains the quoted
// values of the PCRs that it extends.
func (v *verification) checkEventLog(pcrs vtpm.PCRs) {
	data := v.in.TPM.EventLog
	if len(data) == 0 {
		if v.policy.TPM != nil && v.policy.TPM.EventLog {
			v.add(Check{Code: CodeTPMPolicy, Outcome: Fail, Field: "event log", Expected: "an event log", Found: "none"})
		}
		return
	}
	check := Check{Code: CodeTPMEventLog, Outcome: Fail, Expected: "a log that replays to the quoted PCRs", Found: "none"}
	log, err := vtpm.ParseEventLog(data)
	if err != nil {
		check.Reason = err.Error()
		v.add(check)
		return
	}
	var replayed, differ []vtpm.PCR
	for pcr, value := range log.Replay() {
		switch quoted, ok := pcrs[pcr]; {
		case !ok:
		case bytes.Equal(quoted, value):
			replayed = append(replayed, pcr)
		default:
			differ = append(differ, pcr)
		}
	}
	check.Found = fmt.Sprintf("%d events, %s", log.Events(), names(replayed))
	switch {
	case len(differ) > 0:
		check.Reason = "it replays to other values of " + names(differ)
	case len(replayed) == 0:
		check.Reason = "it says nothing of the PCRs that were quoted"
	default:
		check.Outcome = Pass
	}
	v.add(check)
}

// checkPCRs checks what the policy demands of each register.
func (v *verification) checkPCRs(pcrs vtpm.PCRs) {
	p := v.policy.TPM
	if p == nil || len(p.PCRs)+len(p.Quoted) == 0 {
		if v.policy.WithoutPCRs {
			v.skip(CodeTPMPolicy, names(slices.Collect(maps.Keys(pcrs))), "--without-pcrs: whatever was started above the launched code")
			return
		}
		v.add(Check{
			Code: CodeTPMPolicy, Outcome: Fail, Expected: notGiven, Found: names(slices.Collect(maps.Keys(pcrs))),
			Reason: "nothing says which values PCRs must have", Hint: "--pcr sha256:N=HEX, or --without-pcrs",
		})
		return
	}
	for _, pcr := range slices.SortedFunc(maps.Keys(p.PCRs), vtpm.PCR.Compare) {
		v.checkPCR(pcr, pcrs[pcr], p.PCRs[pcr])
	}
	for _, pcr := range slices.SortedFunc(slices.Values(p.Quoted), vtpm.PCR.Compare) {
		if _, judged := p.PCRs[pcr]; !judged {
			v.checkPCR(pcr, pcrs[pcr], nil)
		}
	}
}

// checkPCR checks one register. Without accepted values, any will do that is quoted.
func (v *verification) checkPCR(pcr vtpm.PCR, value []byte, accepted [][]byte) {
	write := func(value []byte) string { return fmt.Sprintf("%v=%s", pcr, hex.EncodeToString(value)) }
	check := Check{Code: CodeTPMPolicy, Outcome: Fail, Field: "PCR " + pcr.String(), Expected: pcr.String() + "=any value", Found: write(value)}
	var all []string
	for _, a := range accepted {
		all = append(all, write(a))
	}
	if len(all) > 0 {
		check.Expected = strings.Join(all, " or ")
	}
	switch {
	case value == nil:
		check.Found, check.Reason = "not quoted", "the quote does not cover it"
	case len(all) == 0 || slices.Contains(all, check.Found):
		check.Outcome = Pass
	default:
		check.Reason = "something else was measured than what is accepted"
	}
	v.add(check)
}

// names lists registers, those of a bank together: "sha256:0,1,7".
func names(pcrs []vtpm.PCR) string {
	if len(pcrs) == 0 {
		return "no PCRs"
	}
	var b strings.Builder
	var bank vtpm.Bank
	for i, pcr := range slices.SortedFunc(slices.Values(pcrs), vtpm.PCR.Compare) {
		switch {
		case i > 0 && pcr.Bank == bank:
			fmt.Fprintf(&b, ",%d", pcr.Index)
		case i > 0:
			fmt.Fprintf(&b, " %v", pcr)
		default:
			b.WriteString(pcr.String())
		}
		bank = pcr.Bank
	}
	return b.String()
}
