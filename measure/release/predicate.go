package release

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/internal/strictjson"
)

// SBOMType is the predicate type of a bill of materials in CycloneDX.
// Source: in-toto attestation framework, spec/predicates/cyclonedx.md.
const SBOMType = "https://cyclonedx.org/bom"

// otherStatement is an in-toto statement with a predicate of others.
type otherStatement struct {
	Type          string          `json:"_type"`
	Subject       []subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// PredicateStatement returns another in-toto statement about a boot stack's
// components, such as its bill of materials. What the predicate says is not looked
// at.
func PredicateStatement(predicateType string, predicate []byte, components []Component) ([]byte, error) {
	if len(components) == 0 {
		return nil, errors.New("making a statement: no components")
	}
	payload, err := strictjson.Canonical(otherStatement{StatementType, Release{Components: components}.subjects(), predicateType, predicate})
	if err != nil {
		return nil, fmt.Errorf("making a statement: %w", err)
	}
	if len(payload) > maxStatement {
		return nil, fmt.Errorf("making a statement: %d bytes, more than %d", len(payload), maxStatement)
	}
	return payload, nil
}
