package policyfile

import (
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/verifier"
)

// Field describes a field of the file. docs/spec/policy.md is made from them.
type Field struct {
	// Path is where the field stands. PRODUCT stands for a product's name.
	Path    string
	Values  string // what may be written
	Default string // "" where there is none
	Meaning string
	Checks  []verifier.Code // that it decides
}

// productPath is where a product's field stands in Field.Path.
const productPath = productsSection + ".PRODUCT"

// Fields returns every field in the order of the file.
func Fields() []Field {
	f := Default()
	fields := []Field{
		{Path: "version", Values: fmt.Sprint(version), Meaning: "of this format; must be there"},
		{
			Path: productsSection, Values: "Milan, Genoa, Turin, each with its fields or " + defaultWord, Default: "all three",
			Meaning: "the processors that are accepted", Checks: []verifier.Code{verifier.CodeAllowedProduct},
		},
		{
			Path: productPath + "." + allTCBs, Values: "least levels, as for reported", Default: productDefaults(f, productSettings()[0]),
			Meaning: "the three below at once; what they name goes before it",
			Checks:  []verifier.Code{verifier.CodeReportedTCB, verifier.CodeCommittedTCB, verifier.CodeLaunchTCB},
		},
	}
	for _, s := range productSettings() {
		text := productDefaults(f, s)
		if text == fields[2].Default {
			text = "as " + allTCBs
		}
		fields = append(fields, Field{productPath + "." + s.name, s.values, text, s.meaning, s.codes})
	}
	for _, s := range sectioned() {
		fields = append(fields, Field{s.path(), s.values, s.write(&f), s.meaning, s.codes})
	}
	return fields
}

// productDefaults returns what a field is by default, by product where they differ.
func productDefaults(f File, s productField) string {
	var parts []string
	same := true
	first := ""
	for i, p := range verifier.Products() {
		text := s.write(p, f.Policy.Products[p])
		if i == 0 {
			first = text
		}
		same = same && text == first
		parts = append(parts, fmt.Sprintf("%v %s", p, text))
	}
	if same {
		return first
	}
	return strings.Join(parts, "; ")
}

// Difference is a field in which two policies differ, each as in a file.
type Difference struct {
	Field, Here, There string // "" where it is unset
}

// Differences returns the fields in which f is not as other.
func (f File) Differences(other File) []Difference {
	var all []Difference
	add := func(field, here, there string) {
		if here != there {
			all = append(all, Difference{field, here, there})
		}
	}
	for _, p := range verifier.Products() {
		here, ok := f.Policy.Products[p]
		there, ok2 := other.Policy.Products[p]
		path := fmt.Sprintf("%s.%v", productsSection, p)
		if !ok || !ok2 {
			add(path, accepted(ok), accepted(ok2))
			continue
		}
		for _, s := range productSettings() {
			add(path+"."+s.name, s.write(p, here), s.write(p, there))
		}
	}
	for _, s := range sectioned() {
		add(s.path(), s.write(&f), s.write(&other))
	}
	return all
}

func accepted(yes bool) string {
	if yes {
		return "accepted"
	}
	return "refused"
}
