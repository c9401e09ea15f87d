package verifier

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// checkAuthenticity judges certificate, chain and signature. Where there is no
// certificate, what follows from it cannot be judged and the verdict says so.
func (v *verification) checkAuthenticity(ctx context.Context) error {
	r := v.in.Report
	v.product, _ = r.Product()
	e, ok, err := v.endorsement(ctx)
	if err != nil || !ok {
		return err
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
	if err := v.checkTrust(ctx, e); err != nil {
		return err
	}
	v.checkEndorsement(e)
	check := Check{Code: CodeSignature, Expected: "ECDSA P-384 with SHA-384 by the " + e.key.String(), Outcome: Fail, Found: "a signature that does not verify"}
	check.Reason = "the report was changed after it was signed, or another processor signed it"
	if verifySignature(r, e.cert.PublicKey.(*ecdsa.PublicKey)) { // newEndorsement has checked the type
		check.Outcome, check.Found, check.Reason = Pass, check.Expected, ""
	}
	v.add(check)
	return nil
}

// checkTrust judges the chain, against AMD's roots or against the simulated
// chain alone, its dates, and whether it was revoked.
func (v *verification) checkTrust(ctx context.Context, e *endorsement) error {
	v.simulated = e.simulated
	check := Check{Code: CodeChain, Outcome: Fail, Found: fmt.Sprintf("%.80q", e.cert.Issuer.CommonName)}
	if s := v.policy.Simulated; s != nil {
		check.Expected = "the SIMULATED chain under " + s.ARK.Subject.CommonName + ", and no other"
		check.Hint = "leave out --trust-simulated to judge a report against AMD's roots"
	} else {
		check.Expected = "AMD's chain of " + e.product.String()
	}
	c, err := v.chainOf(ctx, e)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && e.simulated != (v.policy.Simulated != nil):
		check.Reason = "the certificate's name and its chain do not agree on whether they are simulated"
	case err == nil:
		check.Outcome, check.Hint = Pass, ""
	case e.simulated && v.policy.Simulated == nil:
		check.Reason = "signed by a simulated PSP, which anyone can make: never genuine AMD hardware"
		check.Hint = "--trust-simulated CHAIN if you meant to judge a simulated guest"
	case v.policy.Simulated != nil && !e.simulated:
		check.Reason = "with --trust-simulated nothing but the simulated chain is trusted, and this certificate says that it is AMD's"
	default:
		check.Reason = oneLine(err)
	}
	trusted := check.Outcome == Pass
	v.add(check)

	check = Check{Code: CodeValidity, Outcome: Pass, Found: validity(e.cert), Expected: "valid at " + v.policy.Time.UTC().Format(time.RFC3339)}
	if err := validAt(v.policy.Time, e.cert, c.ask, c.ark); err != nil {
		check.Outcome, check.Reason = Fail, oneLine(err)
		check.Hint = "--at TIME judges certificates at another time, such as when the report was made"
	}
	v.add(check)
	if !trusted {
		return nil // there is nobody whose lists would tell
	}
	return v.checkRevocation(ctx, e, c)
}

// checkEndorsement checks that the certificate is for this chip at this TCB.
func (v *verification) checkEndorsement(e *endorsement) {
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
		check := Check{Code: CodeChipID, Expected: hex.EncodeToString(e.chipID[:]), Found: hex.EncodeToString(r.ChipID[:])}
		check.Reason = "the certificate is another chip's"
		if r.SignerInfo.MaskChipKey() {
			check.Reason = "the chip's id is masked (MASK_CHIP_KEY): the report cannot be tied to a VCEK"
		}
		v.compare(check)
	}
	if e.key == VLEK && !v.policy.AuthenticityOnly {
		v.checkCSP(e.cspID)
	}
}

// checkCSP checks the provider of a VLEK, which is good on all its machines.
func (v *verification) checkCSP(found string) {
	check := Check{Code: CodeCSPID, Outcome: Fail, Expected: strings.Join(v.policy.CSPIDs, " or "), Found: found, Reason: "another provider's key"}
	switch {
	case slices.Contains(v.policy.CSPIDs, found):
		check.Outcome, check.Reason = Pass, ""
	case v.policy.WithoutCSPID:
		check.Outcome, check.Expected, check.Reason = Skipped, "", "--without-csp-id"
	case len(v.policy.CSPIDs) == 0:
		check.Expected = "the provider to trust"
		check.Reason, check.Hint = "a VLEK is good on every machine of its provider, and none was named", "--csp-id ID or --without-csp-id"
	}
	v.add(check)
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

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// endorsement finds the certificate of the key that the report says has signed
// it: the caller's, the table's, the Source's. The table's entries are the
// host's: a slot's name decides nothing, and one that is for another TCB or chip
// than the report's, as after an update of firmware, is set aside while there is
// a Source to ask.
func (v *verification) endorsement(ctx context.Context) (*endorsement, bool, error) {
	key := v.in.Report.SignerInfo.SigningKey()
	check := Check{Code: CodeCertificate, Expected: "a certificate of the " + key.String(), Found: "none", Outcome: Fail}
	if key != VCEK && key != VLEK {
		check.Code, check.Expected, check.Found = CodeKey, "VCEK or VLEK", key.String()
		check.Reason = "no processor signed this report"
		v.add(check)
		return nil, false, nil
	}
	found, broken := v.offered()
	i := slices.IndexFunc(found, func(e *endorsement) bool { return v.fits(e) })
	var missing error
	if i < 0 && v.policy.VCEK == nil && key == VCEK {
		var e *endorsement
		if e, missing = v.fetched(ctx); ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		if missing == nil {
			found, i = append(found, e), len(found)
		}
	}
	if i < 0 { // let the checks say what is wrong with one of the right kind, or with any
		i = max(0, slices.IndexFunc(found, func(e *endorsement) bool { return e.key == key }))
	}
	retry := missing != nil && !errors.Is(missing, ErrNotFound) && !errors.Is(missing, errNoSource)
	switch {
	case retry:
		check.Reason = "asking for the certificate failed: " + oneLine(missing)
		if len(found) > 0 {
			check.Found = "one for another TCB or chip"
		}
		check.Hint = "try again, or " + v.collateralHint(key)
	case len(found) > 0:
		e := found[i]
		check.Outcome, check.Found = Pass, fmt.Sprintf("%s, serial %d", e.cert.Subject.CommonName, e.cert.SerialNumber)
		v.add(check)
		return e, true, nil
	case broken != nil:
		check.Code, check.Found, check.Reason = CodeForm, "a certificate that cannot be read", broken.Error()
		check.Hint = "give another with --vcek"
	default:
		check.Reason = "no certificate came with the report"
		if errors.Is(missing, ErrNotFound) {
			check.Reason += ", and there is none for this chip and TCB: " + oneLine(missing)
		}
		check.Hint = v.collateralHint(key)
	}
	v.add(check)
	return nil, false, nil
}

// fits reports whether a certificate is for the report's key, TCB and chip.
func (v *verification) fits(e *endorsement) bool {
	r := v.in.Report
	tcb, err := r.ReportedTCB.Decode(e.product)
	return err == nil && e.key == r.SignerInfo.SigningKey() && e.tcb == tcb && (e.key == VLEK || e.chipID == r.ChipID)
}

// offered returns what the caller gave, or else what is in the table.
func (v *verification) offered() (found []*endorsement, broken error) {
	if cert := v.policy.VCEK; cert != nil {
		e, err := v.cache.endorsement(cert.Raw)
		if err != nil {
			return nil, err
		}
		return []*endorsement{e}, nil
	}
	for _, entry := range v.in.Certificates.Entries {
		if name := entry.Name(); name != "VCEK" && name != "VLEK" {
			continue
		}
		e, err := v.cache.endorsement(entry.Data)
		if err != nil {
			broken = fmt.Errorf("certificate table: %s: %w", entry.Name(), err)
			continue
		}
		found = append(found, e)
	}
	return found, broken
}

var errNoSource = errors.New("there is nothing to ask")

// fetched asks the Source for the VCEK. A report of version 2 does not name its
// product: those that have such reports are tried.
func (v *verification) fetched(ctx context.Context) (*endorsement, error) {
	if v.source == nil || v.policy.Simulated != nil {
		return nil, errNoSource
	}
	r, candidates := v.in.Report, []Product{v.product}
	switch {
	case r.ChipID == [64]byte{}:
		return nil, fmt.Errorf("the report does not name its chip: %w", ErrNotFound)
	case r.Version < 3:
		candidates = []Product{Milan, Genoa}
	case v.product == UnknownProduct:
		return nil, fmt.Errorf("the product is unknown: %w", ErrNotFound)
	}
	var errs []error
	for _, p := range candidates {
		tcb, err := r.ReportedTCB.Decode(p)
		if err != nil {
			return nil, err
		}
		der, err := v.source.VCEK(ctx, p, r.ChipID[:p.HWIDSize()], tcb)
		if err == nil {
			return v.cache.endorsement(der)
		}
		if errs = append(errs, err); !errors.Is(err, ErrNotFound) {
			break
		}
	}
	return nil, errors.Join(errs...)
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
	fmc := ""
	if v.product == Turin {
		fmc = fmt.Sprintf("fmcSPL=%d&", tcb.FMC)
	}
	return fmt.Sprintf("without --offline it is fetched; or give it with --vcek: https://kdsintf.amd.com/vcek/v1/%v/%x?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d",
		v.product, r.ChipID[:v.product.HWIDSize()], fmc, tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode)
}
