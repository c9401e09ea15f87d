package render

import (
	"encoding/xml"
	"fmt"
	"io"
	"time"

	"github.com/kraudcloud/kattest/verifier"
)

// The XML that Jenkins and GitLab read: a suite for each report, a case for each
// check.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Timestamp  string          `xml:"timestamp,attr"` // at which certificates were judged
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Failure *junitMessage `xml:"failure,omitempty"`
		Skipped *junitMessage `xml:"skipped,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes results as JUnit's XML. Characters that XML does not have become
// U+FFFD.
func JUnit(w io.Writer, results []verifier.Result) error {
	all := junitSuites{Name: "kattest verify"}
	for _, r := range results {
		s := suite(r)
		all.Tests, all.Failures, all.Skipped = all.Tests+s.Tests, all.Failures+s.Failures, all.Skipped+s.Skipped
		all.Suites = append(all.Suites, s)
	}
	data, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("writing JUnit: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, data)
	return err
}

func suite(r verifier.Result) junitSuite {
	s := junitSuite{
		Name: subject(r), Tests: len(r.Checks), Timestamp: r.Time.UTC().Format(time.RFC3339),
		Properties: []junitProperty{
			{"verdict", r.Verdict.String()},
			{"simulated", fmt.Sprint(r.Simulated)},
			{"product", r.Product.String()},
		},
	}
	classes := classes()
	for _, c := range r.Checks {
		one := junitCase{Class: "kattest." + classes[c.Code].String(), Name: string(c.Code)}
		switch c.Outcome {
		case verifier.Pass:
		case verifier.Skipped:
			s.Skipped++
			one.Skipped = &junitMessage{Message: c.Reason}
		default:
			s.Failures++
			one.Failure = &junitMessage{Message: orNothing(c.Reason), Type: classes[c.Code].String(), Text: details(c)}
		}
		s.Cases = append(s.Cases, one)
	}
	return s
}

func classes() map[verifier.Code]verifier.Class {
	m := map[verifier.Code]verifier.Class{}
	for _, info := range verifier.Checks() {
		m[info.Code] = info.Class
	}
	return m
}
