package evidence

import (
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/internal/strictjson"
)

// TPMMediaType names this version of the format of vTPM evidence.
const TPMMediaType = "application/vnd.kattest.tpm-evidence.v1+json"

// TPM is what a guest with a virtual TPM answers: a report that binds the TPM's
// keys, and a quote. It is documented in docs/spec/tpm.md.
type TPM struct {
	MediaType string `json:"mediaType"`
	// HCL is the HCL report of an Azure confidential VM: NV index 0x01400001.
	// Either it or SVSM is there.
	HCL []byte `json:"hcl,omitempty"`
	// SVSM is the answer of an SVSM's service attestation.
	SVSM *SVSM `json:"svsm,omitempty"`
	// Certificates is the certificate table that the host supplied with the
	// report (GHCB, SNP extended guest request), or empty.
	Certificates []byte `json:"certificates,omitempty"`
	// Quote is nil where only the report is to be judged.
	Quote *Quote `json:"quote,omitempty"`
	// EventLog is the firmware's, in the crypto-agile format, or empty.
	EventLog []byte `json:"eventLog,omitempty"`
}

// SVSM is the answer of an SVSM's service attestation, and the key that signs
// quotes (AMD 58019 rev 1.00, section 7).
type SVSM struct {
	Report   []byte `json:"report"`   // 1184 bytes
	Nonce    Hex    `json:"nonce"`    // 64 bytes, as the SVSM got it
	Manifest []byte `json:"manifest"` // of the vTPM, or of all services
	AK       []byte `json:"ak"`       // public area (TPMT_PUBLIC)
}

// Quote is what TPM2_Quote returns, and the values that it is about.
type Quote struct {
	Message   []byte `json:"message"`   // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
	// PCRs are the values of the registers that are quoted, one after the other,
	// in the order of the quote's banks and in each by index.
	PCRs []byte `json:"pcrs"`
}

// ParseTPM reads vTPM evidence and checks its form, not that of what is in it.
func ParseTPM(data []byte) (TPM, error) {
	if len(data) > MaxSize {
		return TPM{}, fmt.Errorf("TPM evidence: %d bytes, more than %d", len(data), MaxSize)
	}
	var e TPM
	if err := strictjson.DecodeBounded(data, &e, maxValues); err != nil {
		return TPM{}, fmt.Errorf("TPM evidence: %w", err)
	}
	if err := e.check(); err != nil {
		return TPM{}, fmt.Errorf("TPM evidence: %w", err)
	}
	return e, nil
}

func (e TPM) check() error {
	var errs []error
	if e.MediaType != TPMMediaType {
		errs = append(errs, fmt.Errorf("mediaType: %.80q, want %q", e.MediaType, TPMMediaType))
	}
	if (len(e.HCL) > 0) == (e.SVSM != nil) {
		errs = append(errs, errors.New("hcl, svsm: want one of them"))
	}
	if e.SVSM != nil && len(e.SVSM.Report) != ReportSize {
		errs = append(errs, fmt.Errorf("svsm.report: %d bytes, want %d", len(e.SVSM.Report), ReportSize))
	}
	if e.SVSM != nil && len(e.SVSM.Nonce) != MaxNonce {
		errs = append(errs, fmt.Errorf("svsm.nonce: %d bytes, want %d", len(e.SVSM.Nonce), MaxNonce))
	}
	if len(e.Certificates) > MaxCertificates {
		errs = append(errs, fmt.Errorf("certificates: %d bytes, more than %d", len(e.Certificates), MaxCertificates))
	}
	if len(e.EventLog) > 0 && e.Quote == nil {
		errs = append(errs, errors.New("eventLog: without a quote, nothing says that it is true"))
	}
	return errors.Join(errs...)
}
