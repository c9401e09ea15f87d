package render

import (
	"io"
	"net/url"
	"path/filepath"

	"github.com/kraudcloud/kattest/verifier"
)

// The parts of SARIF that are used.
// Source: OASIS, Static Analysis Results Interchange Format 2.1.0.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool         `json:"tool"`
		Artifacts  []sarifArtifact   `json:"artifacts"`
		Results    []sarifResult     `json:"results"`
		Properties map[string]string `json:"properties"` // each report's verdict
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string            `json:"id"`
		ShortDescription sarifMessage      `json:"shortDescription"`
		Properties       map[string]string `json:"properties"`
	}
	sarifMessage struct {
		Text string `json:"text"`
	}
	sarifArtifact struct {
		Location sarifURI `json:"location"`
	}
	sarifURI struct {
		URI   string `json:"uri"`
		Index *int   `json:"index,omitempty"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifMessage    `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifURI     `json:"artifactLocation"`
		Region   *sarifRegion `json:"region,omitempty"`
	}
	sarifRegion struct {
		ByteOffset int `json:"byteOffset"`
		ByteLength int `json:"byteLength"`
	}
)

// SARIF writes results as one run of SARIF 2.1.0, whose rules are the checks. A
// check that failed is an error, one that was left out a note; those that pass are
// not told. version is the tool's, and may be empty.
func SARIF(w io.Writer, results []verifier.Result, version string) error {
	run := sarifRun{
		Tool:      sarifTool{sarifDriver{Name: "kattest verify", Version: version}},
		Artifacts: []sarifArtifact{}, Results: []sarifResult{}, Properties: map[string]string{},
	}
	rules := map[verifier.Code]int{}
	for i, info := range verifier.Checks() {
		rules[info.Code] = i
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: string(info.Code), ShortDescription: sarifMessage{info.Meaning},
			Properties: map[string]string{"class": info.Class.String(), "field": info.Field},
		})
	}
	for i, r := range results {
		at := sarifURI{URI: uri(subject(r))}
		run.Artifacts = append(run.Artifacts, sarifArtifact{at})
		run.Properties[at.URI] = r.Verdict.String()
		at.Index = &i
		for _, c := range r.Checks {
			if c.Outcome == verifier.Pass {
				continue
			}
			one := sarifResult{RuleID: string(c.Code), RuleIndex: rules[c.Code], Level: "error", Message: sarifMessage{details(c)}}
			if c.Outcome == verifier.Skipped {
				one.Level, one.Message.Text = "note", "left out: "+orNothing(c.Reason)
			}
			place := sarifPhysical{Artifact: at}
			if c.Bytes != nil && r.Form == verifier.FormReport {
				place.Region = &sarifRegion{c.Bytes.Offset, c.Bytes.Length}
			}
			one.Locations = []sarifLocation{{place}}
			run.Results = append(run.Results, one)
		}
	}
	return encode(w, sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}})
}

// uri makes a relative reference of a file's name.
func uri(name string) string {
	return (&url.URL{Path: filepath.ToSlash(name)}).String()
}
