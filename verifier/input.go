package verifier

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/guest/evidence"
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
}

// ParseInput reads evidence JSON, a report of 1184 bytes, or a report with a
// certificate table (GHCB) behind it. Its errors are of type *MalformedError.
func ParseInput(data []byte) (Input, error) {
	if len(data) > MaxInput {
		return Input{}, problem(Problem{Code: CodeSize, Expected: fmt.Sprintf("at most %d", MaxInput), Found: fmt.Sprintf("%d bytes", len(data))})
	}
	if formOf(data) == FormEvidence {
		return parseEvidence(data)
	}
	if len(data) < ReportSize {
		return Input{}, problem(Problem{Code: CodeSize, Expected: fmt.Sprintf("%d, or evidence in JSON", ReportSize), Found: fmt.Sprintf("%d bytes", len(data))})
	}
	return newInput(data[:ReportSize], data[ReportSize:])
}

// formOf tells evidence from a report, which begins with its version and never
// with a brace or white space.
func formOf(data []byte) string {
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) > 0 && text[0] == '{' {
		return FormEvidence
	}
	return FormReport
}

func parseEvidence(data []byte) (Input, error) {
	e, err := evidence.Parse(data)
	if err != nil {
		return Input{}, problem(Problem{Code: CodeEvidence, Reason: strings.TrimPrefix(err.Error(), "evidence: ")})
	}
	in, err := newInput(e.Report, e.Certificates)
	if err != nil {
		return Input{}, err
	}
	in.Evidence = &e
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
