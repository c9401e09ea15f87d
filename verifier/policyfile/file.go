package policyfile

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kraudcloud/kattest/verifier"
)

// version is the only one of the format.
const version = 1

// allTCBs names the field of a product that stands for its three TCBs.
const allTCBs = "tcb"

// file reads the whole document over what f holds.
func (d *decoder) file(root value, f *File) {
	sections := map[string]map[string]setting{}
	for _, s := range settings() {
		if sections[s.section] == nil {
			sections[s.section] = map[string]setting{}
		}
		sections[s.section][s.name] = s
	}
	// read reads a member of a section.
	read := func(section, name string, v value) {
		if s, ok := sections[section][name]; ok {
			s.read(d, v, f)
			return
		}
		d.errorf(v, "unknown field")
	}
	versioned := false
	d.members(root, func(name string, v value) {
		switch {
		case name == "version":
			versioned = true
			if text, ok := d.text(v, "1"); ok && text != fmt.Sprint(version) {
				d.errorf(v, "want %d, not %.40q", version, text)
			}
		case name == productsSection:
			d.products(v, f)
		case name != "" && sections[name] != nil:
			d.members(v, func(field string, v value) { read(name, field, v) })
		default:
			read("", name, v)
		}
	})
	if !versioned {
		d.errorf(root, "no version: want version: %d", version)
	}
	d.consistent(root, f)
}

// consistent refuses labels of an ID block that anyone can have signed.
func (d *decoder) consistent(root value, f *File) {
	p := f.Policy
	if (p.FamilyID != nil || p.ImageID != nil || p.MinimumGuestSVN > 0) && len(p.IDKeys)+len(p.AuthorKeys) == 0 {
		d.errorf(value{root.node, blockSection}, "%w", errLabel)
	}
}

// products reads those that are accepted; the others no longer are.
func (d *decoder) products(v value, f *File) {
	base := f.Policy.Products
	f.Policy.Products = map[verifier.Product]verifier.ProductPolicy{}
	d.members(v, func(name string, v value) {
		product, err := verifier.ParseProduct(name)
		if err != nil || product.String() != name {
			d.errorf(v, "unknown product: want Milan, Genoa or Turin")
			return
		}
		minima := base[product]
		if v.word() != defaultWord {
			d.product(v, product, &minima)
		}
		f.Policy.Products[product] = minima
	})
}

func (d *decoder) product(v value, p verifier.Product, minima *verifier.ProductPolicy) {
	// tcb is for all three, wherever it stands; what the others name goes before it.
	d.members(v, func(name string, v value) {
		if name == allTCBs {
			before := len(d.errs)
			for _, tcb := range []*verifier.TCB{&minima.Reported, &minima.Committed, &minima.Launch} {
				if len(d.errs) == before { // else they would be told three times
					d.levels(v, p, tcb)
				}
			}
		}
	})
	if v.node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		name := v.node.Content[i].Value
		member := v.child(name, v.node.Content[i+1])
		if s, ok := productSetting(name); ok {
			s.read(d, member, p, minima)
		} else if name != allTCBs {
			d.errorf(member, "unknown field")
		}
	}
}

// YAML writes the whole policy: Parse reads the same from it.
func (f File) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: %d\n", version)
	for _, p := range verifier.Products() {
		minima, ok := f.Policy.Products[p]
		if !ok {
			continue
		}
		if !strings.Contains(b.String(), productsSection) {
			fmt.Fprintf(&b, "%s:\n", productsSection)
		}
		fmt.Fprintf(&b, "  %v:\n", p)
		for _, s := range productSettings() {
			fmt.Fprintf(&b, "    %s: %s\n", s.name, s.write(p, minima))
		}
	}
	section := ""
	for _, s := range sectioned() {
		text := s.write(&f)
		if text == "" {
			continue
		}
		indent := ""
		if s.section != "" {
			indent = "  "
			if s.section != section {
				fmt.Fprintf(&b, "%s:\n", s.section)
			}
		}
		section = s.section
		fmt.Fprintf(&b, "%s%s: %s\n", indent, s.name, text)
	}
	return b.String()
}

// sectioned are the settings with those at the top first, as a section's must
// stand together.
func sectioned() []setting {
	var top, below []setting
	for _, s := range settings() {
		if s.section == "" {
			top = append(top, s)
		} else {
			below = append(below, s)
		}
	}
	return append(top, below...)
}
