package verifier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// MaxInput is the largest input that ParseInput reads, in bytes.
const MaxInput = evidence.MaxSize

// Input is what is judged.
type Input struct {
	Report Report
	// Certificates is the certificate table that came with the report; the zero
	// value where none did.
	Certificates CertificateTable
	// Evidence is the guest's answer to a challenge, nil for a bare report.
	Evidence *evidence.Evidence
	// TPM is what came of a virtual TPM, nil where nothing did.
	TPM *TPM
}

// form names what the input is.
func (in Input) form() string {
	switch {
	case in.Evidence != nil:
		return FormEvidence
	case in.TPM == nil:
		return FormReport
	case in.TPM.bare:
		return FormHCL
	default:
		return FormTPM
	}
}

// ParseInput reads evidence JSON, vTPM evidence JSON, a report of 1184 bytes, or
// with a certificate table (GHCB) behind it, or an Azure VM's HCL report. Its
// errors are of type *MalformedError.
func ParseInput(data []byte) (Input, error) {
	if len(data) > MaxInput {
		return Input{}, problem(Problem{Code: CodeSize, Expected: fmt.Sprintf("at most %d", MaxInput), Found: fmt.Sprintf("%d bytes", len(data))})
	}
	switch formOf(data) {
	case FormEvidence:
		return parseEvidence(data)
	case FormTPM:
		return parseTPM(data)
	case FormHCL:
		return newTPMInput(evidence.TPM{HCL: data}, true)
	}
	if len(data) < ReportSize {
		return Input{}, problem(Problem{Code: CodeSize, Expected: fmt.Sprintf("%d, or evidence in JSON", ReportSize), Found: fmt.Sprintf("%d bytes", len(data))})
	}
	return newInput(data[:ReportSize], data[ReportSize:])
}

// formOf tells the forms apart. A report begins with its version, and so never
// with a brace, white space or a letter. What is not vTPM evidence by its media
// type is read as evidence, and refused with the media type's name.
func formOf(data []byte) string {
	if vtpm.IsHCL(data) {
		return FormHCL
	}
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return FormReport
	}
	if mediaType(data) == evidence.TPMMediaType {
		return FormTPM
	}
	return FormEvidence
}

// mediaType finds the media type in JSON of any size without reading it all,
// which is for the parser of the form to do.
func mediaType(data []byte) (name string) {
	_, rest, _ := bytes.Cut(data, []byte(`"mediaType"`))
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte(":"))
	if !ok || json.NewDecoder(bytes.NewReader(rest[:min(len(rest), 256)])).Decode(&name) != nil {
		return ""
	}
	return name
}

func parseEvidence(data []byte) (Input, error) {
	e, err := evidence.Parse(data)
	if err != nil {
		return Input{}, evidenceProblem(err)
	}
	in, err := newInput(e.Report, e.Certificates)
	if err != nil {
		return Input{}, err
	}
	in.Evidence = &e
	return in, nil
}

// evidenceProblem says in one line what is wrong with evidence.
func evidenceProblem(err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "TPM "), "evidence: ")
	return problem(Problem{Code: CodeEvidence, Reason: strings.ReplaceAll(text, "\n", "; ")})
}

func parseTPM(data []byte) (Input, error) {
	e, err := evidence.ParseTPM(data)
	if err != nil {
		return Input{}, evidenceProblem(err)
	}
	return newTPMInput(e, false)
}

func newTPMInput(e evidence.TPM, bare bool) (Input, error) {
	t := &TPM{SVSM: e.SVSM, Quote: e.Quote, EventLog: e.EventLog, bare: bare}
	var report []byte
	if e.SVSM != nil {
		report = e.SVSM.Report
	} else {
		hcl, err := vtpm.ParseHCL(e.HCL)
		if err != nil {
			return Input{}, evidenceProblem(err)
		}
		t.HCL, report = &hcl, hcl.Report
	}
	in, err := newInput(report, e.Certificates)
	if err != nil {
		return Input{}, err
	}
	in.TPM = t
	return in, nil
}

func newInput(report, table []byte) (Input, error) {
	r, reportErr := ParseReport(report)
	certs, tableErr := ParseCertificateTable(table)
	if all := problems(reportErr, tableErr); len(all) > 0 {
		return Input{}, &MalformedError{all}
	}
	return Input{Report: r, Certificates: certs}, nil
}
