package verifier

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// checkAuthenticity judges certificate, chain and signature. Where there is no
// certificate, what follows from it cannot be judged and the verdict says so.
func (v *verification) checkAuthenticity() error {
	r := v.in.Report
	v.product, _ = r.Product()
	e, ok := v.endorsement()
	if !ok {
		return nil
	}
	if v.product == UnknownProduct && r.Version < 3 {
		v.product = e.product
	}
	v.compare(Check{
		Code: CodeKey, Expected: r.SignerInfo.SigningKey().String(), Found: e.key.String(),
		Reason: "the certificate is for another kind of key than the one that SIGNER_INFO names",
	})
	v.compare(Check{
		Code: CodeProduct, Expected: v.product.String(), Found: e.product.String(),
		Reason: "the certificate is for another product than the report's family and model",
	})
	if err := v.checkTrust(e); err != nil {
		return err
	}
	v.skip(CodeRevocation, "", "not checked: no revocation list was given")
	v.checkEndorsement(e)
	check := Check{Code: CodeSignature, Expected: "ECDSA P-384 with SHA-384 by the " + e.key.String(), Outcome: Fail, Found: "a signature that does not verify"}
	check.Reason = "the report was changed after it was signed, or another processor signed it"
	if verifySignature(r, e.cert.PublicKey.(*ecdsa.PublicKey)) { // newEndorsement has checked the type
		check.Outcome, check.Found, check.Reason = Pass, check.Expected, ""
	}
	v.add(check)
	return nil
}

// endorsement finds the certificate of the key that the report says has signed
// it. The table's entries are the host's: a slot's name decides nothing.
func (v *verification) endorsement() (endorsement, bool) {
	key := v.in.Report.SignerInfo.SigningKey()
	check := Check{Code: CodeCertificate, Expected: "a certificate of the " + key.String(), Found: "none", Outcome: Fail}
	if key != VCEK && key != VLEK {
		check.Code, check.Expected, check.Found = CodeKey, "VCEK or VLEK", key.String()
		check.Reason = "no processor signed this report"
		v.add(check)
		return endorsement{}, false
	}
	var found []endorsement
	var broken error
	if v.policy.VCEK != nil {
		e, err := newEndorsement(v.policy.VCEK)
		if err == nil {
			found = append(found, e)
		}
		broken = err
	} else {
		found, broken = v.tableEndorsements()
	}
	for _, e := range found {
		if e.key == key {
			check.Outcome, check.Found = Pass, fmt.Sprintf("%s, serial %d", e.cert.Subject.CommonName, e.cert.SerialNumber)
			v.add(check)
			return e, true
		}
	}
	switch {
	case len(found) > 0: // of the other kind: let the check of the kind say so
		check.Outcome, check.Found = Pass, found[0].cert.Subject.CommonName
		v.add(check)
		return found[0], true
	case broken != nil:
		check.Code, check.Found, check.Reason = CodeChain, "a certificate that cannot be read", broken.Error()
		check.Hint = "give another with --vcek"
	default:
		check.Reason = "no certificate came with the report"
		check.Hint = v.collateralHint(key)
	}
	v.add(check)
	return endorsement{}, false
}

func (v *verification) tableEndorsements() (found []endorsement, broken error) {
	for _, entry := range v.in.Certificates.Entries {
		if name := entry.Name(); name != "VCEK" && name != "VLEK" {
			continue
		}
		cert, err := x509.ParseCertificate(entry.Data)
		if err != nil {
			broken = fmt.Errorf("certificate table: %s: %w", entry.Name(), err)
			continue
		}
		e, err := newEndorsement(cert)
		if err != nil {
			broken = fmt.Errorf("certificate table: %s: %w", entry.Name(), err)
			continue
		}
		found = append(found, e)
	}
	return found, broken
}

// collateralHint says where the certificate is to be had.
// Source: AMD 57230 rev 1.00, section 4; fmcSPL: the KDS's interface for Turin.
func (v *verification) collateralHint(key SigningKey) string {
	if key == VLEK {
		return "a VLEK's certificate comes from the cloud provider, with the report; give it with --vcek"
	}
	r := v.in.Report
	if v.product == UnknownProduct {
		return "give the VCEK's certificate with --vcek; a report of version 2 does not name the product under which AMD's KDS has it"
	}
	tcb, err := r.ReportedTCB.Decode(v.product)
	if err != nil {
		return err.Error()
	}
	hwid, fmc := r.ChipID[:], ""
	if v.product == Turin {
		hwid, fmc = r.ChipID[:8], fmt.Sprintf("fmcSPL=%d&", tcb.FMC)
	}
	return fmt.Sprintf("fetch it and give it with --vcek: https://kdsintf.amd.com/vcek/v1/%v/%x?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d",
		v.product, hwid, fmc, tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode)
}

// checkTrust judges the chain, against AMD's roots or against the simulated
// chain alone, and its dates.
func (v *verification) checkTrust(e endorsement) error {
	v.simulated = e.simulated
	check := Check{Code: CodeChain, Outcome: Fail, Found: fmt.Sprintf("%q", e.cert.Issuer.CommonName)}
	var chain []*x509.Certificate
	if v.policy.SimulatedChain != nil {
		if len(v.policy.SimulatedChain) != 2 {
			return fmt.Errorf("simulated chain: %d certificates, want ASK and ARK", len(v.policy.SimulatedChain))
		}
		chain = v.policy.SimulatedChain
		check.Expected = "the SIMULATED chain under " + chain[1].Subject.CommonName + ", and no other"
		check.Hint = "leave out --trust-simulated to judge a report against AMD's roots"
	} else {
		check.Expected = "AMD's chain of " + e.product.String()
		var err error
		if chain, err = amdChain(e.product, e.key); err != nil {
			return err
		}
	}
	err := checkChain(e.cert, chain[0], chain[1])
	switch {
	case err == nil && e.simulated != (v.policy.SimulatedChain != nil):
		check.Reason = "the certificate's name and its chain do not agree on whether they are simulated"
	case err == nil:
		check.Outcome, check.Hint = Pass, ""
	case e.simulated && v.policy.SimulatedChain == nil:
		check.Reason = "signed by a simulated PSP, which anyone can make: never genuine AMD hardware"
		check.Hint = "--trust-simulated CHAIN if you meant to judge a simulated guest"
	case v.policy.SimulatedChain != nil && !e.simulated:
		check.Reason = "with --trust-simulated nothing but the simulated chain is trusted, and this certificate says that it is AMD's"
	default:
		check.Reason = oneLine(err)
	}
	v.add(check)

	check = Check{Code: CodeValidity, Outcome: Pass, Found: validity(e.cert), Expected: "valid at " + v.policy.Time.UTC().Format(time.RFC3339)}
	if err := validAt(v.policy.Time, e.cert, chain[0], chain[1]); err != nil {
		check.Outcome, check.Reason = Fail, oneLine(err)
		check.Hint = "--at TIME judges certificates at another time, such as when the report was made"
	}
	v.add(check)
	return nil
}

// checkEndorsement checks that the certificate is for this chip at this TCB.
func (v *verification) checkEndorsement(e endorsement) {
	r := v.in.Report
	check := Check{Code: CodeCertTCB, Expected: e.tcb.String(), Outcome: Fail}
	check.Reason = "the certificate is for another TCB than REPORTED_TCB"
	check.Hint = "the processor's firmware was updated: ask for the certificate of the reported TCB"
	if tcb, err := r.ReportedTCB.Decode(v.product); err != nil {
		check.Found, check.Reason, check.Hint = hex.EncodeToString(r.ReportedTCB[:]), err.Error(), ""
		v.add(check)
	} else {
		check.Found = tcb.String()
		v.compare(check)
	}
	if e.key == VCEK {
		var want [64]byte
		copy(want[:], e.hwid)
		check := Check{Code: CodeChipID, Expected: hex.EncodeToString(want[:]), Found: hex.EncodeToString(r.ChipID[:])}
		check.Reason = "the certificate is another chip's"
		if r.SignerInfo.MaskChipKey() {
			check.Reason = "the chip's id is masked (MASK_CHIP_KEY): the report cannot be tied to a VCEK"
		}
		v.compare(check)
	}
	if v.policy.AuthenticityOnly {
		return
	}
	switch {
	case v.policy.CSPID != "":
		v.compare(Check{Code: CodeCSPID, Expected: v.policy.CSPID, Found: e.cspID, Reason: "another provider's key, or a VCEK, which names none"})
	case e.key == VLEK && v.policy.WithoutCSPID:
		v.skip(CodeCSPID, e.cspID, "--without-csp-id")
	case e.key == VLEK:
		v.add(Check{
			Code: CodeCSPID, Outcome: Fail, Expected: "the provider to trust", Found: e.cspID,
			Reason: "a VLEK is good on every machine of its provider, and none was named", Hint: "--csp-id ID or --without-csp-id",
		})
	}
}

// verifySignature checks the signature over the raw bytes of the report.
func verifySignature(r Report, key *ecdsa.PublicKey) bool {
	digest := sha512.Sum384(r.raw[:signatureOffset])
	return ecdsa.Verify(key, digest[:], scalar(r.raw[signatureOffset:]), scalar(r.raw[signatureOffset+scalarSize:]))
}

func scalar(b []byte) *big.Int {
	be := slices.Clone(b[:scalarSize])
	slices.Reverse(be)
	return new(big.Int).SetBytes(be)
}

func validity(c *x509.Certificate) string {
	return c.NotBefore.UTC().Format(time.RFC3339) + " to " + c.NotAfter.UTC().Format(time.RFC3339)
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
