package verifier

import (
	"crypto/sha256"
	"encoding/hex"
)

const notGiven = "(not given)"

// checkBinding checks what REPORT_DATA binds: nonce, key and events of the
// evidence, or a value that the caller knows.
func (v *verification) checkBinding() {
	p, r, e := v.policy, v.in.Report, v.in.Evidence
	found := hex.EncodeToString(r.ReportData[:])
	if e == nil && v.in.TPM == nil && p.Nonce != nil {
		v.add(Check{
			Code: CodeNonce, Outcome: Fail, Expected: hex.EncodeToString(p.Nonce), Found: "no evidence",
			Reason: "a bare report does not say what it binds a nonce to", Hint: "--report-data HEX, or give the evidence in JSON",
		})
	}
	if e != nil {
		v.checkNonce()
		bound := e.ReportData()
		v.compare(Check{
			Code: CodeReportData, Expected: hex.EncodeToString(bound[:]), Found: found,
			Reason: "the report does not bind this evidence's nonce, key, connection and events: they are another's or were changed",
		})
	}
	if p.TLSKey != nil {
		check := Check{Code: CodeTLSKey, Expected: "SHA-256 " + keyID(p.TLSKey), Found: "no evidence", Reason: "the connection ends at another key than the guest's: someone stands between"}
		if e != nil {
			check.Found = "SHA-256 " + keyID(e.PublicKey)
		}
		v.compare(check)
	}
	if p.TLSExporter != nil {
		check := Check{Code: CodeTLSKey, Expected: "exporter " + hex.EncodeToString(p.TLSExporter), Found: "no evidence", Reason: "the evidence is for another connection: someone hands it on"}
		if e != nil {
			check.Found = "exporter " + e.Exporter.String()
		}
		v.compare(check)
	}
	switch {
	case p.ReportData != nil:
		v.compare(Check{
			Code: CodeReportData, Expected: hex.EncodeToString(p.ReportData[:]), Found: found,
			Reason: "the report was made for another question",
		})
	case e != nil || v.in.TPM != nil: // which tpm.binding judges
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
