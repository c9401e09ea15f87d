package sbom

// document is a CycloneDX document (ECMA-424, 1.6), and the types below are its
// parts: the members that are written here and no others. The format's own library
// is the peer that reads them in the tests; linked into the program, it would cost
// every start half a millisecond.
type document struct {
	Schema       string       `json:"$schema"`
	BOMFormat    string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber,omitempty"` // a URN of RFC 9562
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	BOMRef      string     `json:"bom-ref"`
	Type        string     `json:"type"`
	Name        string     `json:"name"`
	Version     string     `json:"version,omitempty"`
	Description string     `json:"description,omitempty"`
	Scope       string     `json:"scope,omitempty"`
	Hashes      []hash     `json:"hashes,omitempty"`
	PackageURL  string     `json:"purl,omitempty"`
	Properties  []property `json:"properties,omitempty"`
}

// The scopes of components.
const (
	required = "required"
	excluded = "excluded"
)

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"` // hexadecimal
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}
