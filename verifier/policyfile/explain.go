package policyfile

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/verifier"
)

// Subject is what Explain holds against the default.
type Subject struct {
	Report verifier.Report
	// Product is the processor's, which reports of version 2 do not name.
	Product verifier.Product
	// CSPID is the provider that a VLEK's certificate names, "" where it is not known.
	CSPID string
}

type subject struct {
	verifier.Report
	product verifier.Product
	csp     string
}

// answer is what a report has for a field, whether a policy would pass it, and
// what the field would have to say.
type answer struct {
	found, needs string
	passes       bool
}

// Explanation says for each field of a policy file what a report would need. It
// judges nothing: whoever wrote the report may have made it up.
type Explanation struct {
	Product verifier.Product `json:"product"`
	Fields  []Row            `json:"fields"`
	// Policy is a policy file that passes what the report has, and as little else
	// as can be said. What relaxes the default is marked.
	Policy string `json:"policy"`
	// Relaxes are the fields in which Policy accepts what the default refuses.
	Relaxes []string `json:"relaxes"`
}

// Row is one field.
type Row struct {
	Field   string `json:"field"`
	Default string `json:"default"` // as the default has it; "" where it has nothing
	Found   string `json:"found"`
	Passes  bool   `json:"passes"`
	Needs   string `json:"needs"` // what the field would have to say, as in a file
}

// Explain holds a report against the fields of a policy, the default or another.
func Explain(f File, s Subject) Explanation {
	with := subject{s.Report, s.Product, s.CSPID}
	e := Explanation{Product: s.Product, Relaxes: []string{}}
	lines := &policyLines{explanation: &e}
	e.Fields = append(e.Fields, explainProducts(f, with, lines)...)
	for _, field := range settings() {
		if field.explain == nil {
			continue
		}
		a := field.explain(&f, with)
		row := Row{field.path(), field.write(&f), a.found, a.passes, a.needs}
		e.Fields = append(e.Fields, row)
		lines.setting(field, row)
	}
	e.Policy = lines.text()
	return e
}

// explainProducts explains the report's product and its minima. Levels are
// demanded as the report has them: that is the most it passes.
func explainProducts(f File, s subject, lines *policyLines) []Row {
	var names []string
	for _, p := range verifier.Products() {
		if _, ok := f.Policy.Products[p]; ok {
			names = append(names, p.String())
		}
	}
	minima, ok := f.Policy.Products[s.product]
	rows := []Row{{productsSection, strings.Join(names, ", "), s.product.String(), ok, s.product.String()}}
	if s.product == verifier.UnknownProduct {
		rows[0].Needs = ""
		return rows
	}
	lines.product(s.product, ok)
	for _, field := range productSettings() {
		a := field.explain(minima, s)
		row := Row{fmt.Sprintf("%s.%v.%s", productsSection, s.product, field.name), field.write(s.product, minima), a.found, a.passes, a.needs}
		rows = append(rows, row)
		lines.productField(field.name, row)
	}
	return rows
}

// policyLines collects the lines of Explanation.Policy.
type policyLines struct {
	explanation  *Explanation
	products     []string
	top, section []string
	comments     []string
	current      string
}

// relaxation is how a line is marked that accepts what the default refuses.
const relaxation = "  # RELAXES the policy, which has "

func (l *policyLines) relaxes(row Row) string {
	l.explanation.Relaxes = append(l.explanation.Relaxes, row.Field)
	return relaxation + row.Default
}

func (l *policyLines) product(p verifier.Product, accepted bool) {
	mark := ""
	if !accepted {
		l.explanation.Relaxes = append(l.explanation.Relaxes, productsSection)
		mark = "  # RELAXES the policy, which does not accept this product"
	}
	l.products = append(l.products, fmt.Sprintf("  %v:%s", p, mark))
}

func (l *policyLines) productField(name string, row Row) {
	if row.Needs == "" {
		return
	}
	mark := ""
	if !row.Passes {
		mark = l.relaxes(row)
	}
	l.products = append(l.products, fmt.Sprintf("    %s: %s%s", name, row.Needs, mark))
}

// setting adds a line where the report does not pass. What a report says of its
// launch and workload is no reason to accept them: that becomes a comment.
func (l *policyLines) setting(s setting, row Row) {
	line := fmt.Sprintf("%s: %s", s.name, row.Needs)
	switch {
	case s.optional:
		l.comments = append(l.comments, "# "+line)
	case row.Passes || row.Needs == "":
	case s.section == "":
		l.top = append(l.top, line+l.relaxes(row))
	default:
		if s.section != l.current {
			l.section = append(l.section, s.section+":")
			l.current = s.section
		}
		l.section = append(l.section, "  "+line+l.relaxes(row))
	}
}

func (l *policyLines) text() string {
	lines := []string{fmt.Sprintf("version: %d", version)}
	if len(l.products) > 0 {
		lines = append(append(lines, productsSection+":"), l.products...)
	}
	lines = append(append(lines, l.top...), l.section...)
	if len(l.comments) > 0 {
		lines = append(lines, "# By the report's own word, which is no reason to trust them:")
		lines = append(lines, l.comments...)
	}
	return strings.Join(lines, "\n") + "\n"
}

func explainProvisional(f *File, s subject) answer {
	a := answer{found: "committed", passes: true, needs: refuseWord}
	if s.CommittedTCB != s.CurrentTCB || s.Committed != s.Current {
		a = answer{
			found:  fmt.Sprintf("provisional: committed %x firmware %v, current %x firmware %v", s.CommittedTCB, s.Committed, s.CurrentTCB, s.Current),
			passes: f.Policy.WithoutCommitted, needs: allowWord,
		}
	}
	return a
}

func explainForbidden(bit verifier.GuestPolicy, without func(*File) bool) func(*File, subject) answer {
	return func(f *File, s subject) answer {
		if s.Policy&bit != 0 {
			return answer{found: "set", passes: without(f), needs: allowWord}
		}
		return answer{found: "clear", passes: true, needs: forbiddenWord}
	}
}

func explainABI(f *File, s subject) answer {
	found := verifier.ABIVersion{Major: s.Policy.ABIMajor(), Minor: s.Policy.ABIMinor()}
	least := f.Policy.MinimumABI
	a := answer{found: found.String(), needs: quote(found.String())}
	a.passes = found.Major > least.Major || found.Major == least.Major && found.Minor >= least.Minor
	return a
}

func explainChip(f *File, s subject) answer {
	if s.ChipID == [64]byte{} {
		return answer{found: "masked", passes: len(f.Policy.Chips) == 0, needs: anyWord}
	}
	id := hex.EncodeToString(s.ChipID[:])
	return answer{
		found: id, passes: len(f.Policy.Chips) == 0 || slices.Contains(f.Policy.Chips, s.ChipID),
		needs: writeTexts([]string{id}),
	}
}

func explainCSPID(f *File, s subject) answer {
	switch {
	case s.SignerInfo.SigningKey() != verifier.VLEK:
		return answer{found: "no VLEK", passes: true, needs: noneWord}
	case s.csp == "":
		return answer{found: "a VLEK of an unknown provider", passes: f.Policy.WithoutCSPID, needs: anyWord}
	default:
		return answer{
			found: quote(s.csp), passes: f.Policy.WithoutCSPID || slices.Contains(f.Policy.CSPIDs, s.csp),
			needs: writeTexts([]string{s.csp}),
		}
	}
}

func explainAgent(f *File, s subject) answer {
	id := hex.EncodeToString(s.ReportIDMA[:])
	if strings.Trim(id, "f") == "" {
		return answer{found: noneWord, passes: true, needs: noneWord}
	}
	return answer{found: id, passes: slices.Contains(f.Policy.MigrationAgents, s.ReportIDMA), needs: writeTexts([]string{id})}
}

func explainMeasurement(f *File, s subject) answer {
	digest := s.Measurement.String()
	return answer{
		found: digest, needs: writeTexts([]string{digest}),
		passes: slices.ContainsFunc(f.Policy.References, func(r verifier.Reference) bool { return r.Measurement == s.Measurement }),
	}
}

func explainHostData(f *File, s subject) answer {
	text := hex.EncodeToString(s.HostData[:])
	return answer{found: text, passes: f.Policy.HostData != nil && *f.Policy.HostData == s.HostData, needs: quote(text)}
}

func explainFirmware(from verifier.ProductPolicy, s subject) answer {
	older := s.Current
	if firmwareBefore(s.Committed, older) {
		older = s.Committed
	}
	return answer{
		found:  fmt.Sprintf("current %v, committed %v", s.Current, s.Committed),
		passes: !firmwareBefore(older, from.Firmware), needs: older.String(),
	}
}

func firmwareBefore(a, b verifier.FirmwareVersion) bool {
	return slices.Compare([]byte{a.Major, a.Minor, a.Build}, []byte{b.Major, b.Minor, b.Build}) < 0
}
