package verifier

import (
	"fmt"
	"strings"
)

// Product is a line of processors that shares roots and a layout of TCBs.
type Product int

// The products. The zero value is an unknown one.
const (
	UnknownProduct Product = iota
	Milan
	Genoa // and Bergamo, Siena
	Turin
)

var products = []Product{Milan, Genoa, Turin}

// Products returns the known products.
func Products() []Product { return append([]Product(nil), products...) }

func (p Product) String() string {
	switch p {
	case Milan:
		return "Milan"
	case Genoa:
		return "Genoa"
	case Turin:
		return "Turin"
	default:
		return "unknown"
	}
}

// HWIDSize is the size of the HWID in a VCEK's certificate, in bytes: what of
// CHIP_ID is not zero.
func (p Product) HWIDSize() int {
	if p == Turin {
		return 8
	}
	return 64
}

// MarshalText returns the product's name.
func (p Product) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a product's name, without a stepping, or unknown.
func (p *Product) UnmarshalText(text []byte) error {
	for _, known := range append([]Product{UnknownProduct}, products...) {
		if known.String() == string(text) {
			*p = known
			return nil
		}
	}
	return fmt.Errorf("unknown product %.40q", text)
}

// ParseProduct reads a product's name, such as Milan, with or without a
// stepping behind a dash (Milan-B0), as certificates give it.
func ParseProduct(name string) (Product, error) {
	line, _, _ := strings.Cut(name, "-")
	for _, p := range products {
		if p.String() == line {
			return p, nil
		}
	}
	return UnknownProduct, fmt.Errorf("unknown product %.40q", name)
}

// Models are processors of a family, with models First to Last as CPUID has them.
type Models struct{ Family, First, Last byte }

// Models returns the processors that a product is.
// Source: AMD 57230 rev 1.00, and the models of genuine reports.
func (p Product) Models() []Models {
	switch p {
	case Milan:
		return []Models{{0x19, 0x00, 0x0f}}
	case Genoa:
		return []Models{{0x19, 0x10, 0x1f}, {0x19, 0xa0, 0xaf}}
	case Turin:
		return []Models{{0x1a, 0x00, 0x11}}
	default:
		return nil
	}
}

// productOf returns the product of a processor's family and model.
func productOf(family, model byte) (Product, error) {
	for _, p := range products {
		for _, m := range p.Models() {
			if family == m.Family && model >= m.First && model <= m.Last {
				return p, nil
			}
		}
	}
	return UnknownProduct, fmt.Errorf("family 0x%x, model 0x%x is no known product", family, model)
}
